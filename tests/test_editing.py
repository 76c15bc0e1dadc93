"""Editing against the exact denoiser of Gaussian data, where what it ought to give is known in closed form."""

import itertools
import math

import pytest
import torch

from diffusion.method.averaging import Averaging
from diffusion.method.editing import inpaint, interpolate, invert, noisier, slerp, vary
from diffusion.method.noise import Noise
from diffusion.method.process import Gaussian
from diffusion.method.sampler import heun, last, multistep, sample
from diffusion.method.schedule import Cosine, LinearBeta, Rectified

M, S = 0.4, 0.3
SCHEDULES = {"linear": LinearBeta, "cosine": Cosine, "rectified": Rectified}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
both_etas = pytest.mark.parametrize("eta", [0.0, 1.0])
cold = Averaging("row", torch.arange(4)[:, None])  # of images four lines high, T = 4


def knowing(schedule, mean=M, covariance=None):
    """The exact denoiser of data N(mean, covariance), over the columns of an image, or N(M, S^2); t = 0 is an error."""

    def denoiser(x, t, cond=None):
        assert t > 0, "no network was trained at t = 0"
        (alpha, sigma), m = schedule(t), mean if cond is None else mean + cond
        if covariance is None:
            return m + alpha * S**2 * (x - alpha * m) / (alpha**2 * S**2 + sigma**2)
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(len(covariance)))
        return m + (x - alpha * m) @ gain.T

    return denoiser


def data(n=4096, shape=(1, 2, 2), seed=7):
    return M + S * Noise(seed, torch.arange(n))(torch.empty(n, *shape, dtype=torch.float64))


def noise(n, seed=0):
    return Noise(seed, torch.arange(n))


def latents(n, shape=(1, 4, 4), dtype=torch.float64):
    """Two batches of n."""
    return (noise(n, seed)(torch.empty(n, *shape, dtype=dtype)) for seed in (0, 1))


def round_trip(process, x_0, times, refine=0, denoiser=None, cond=None):
    """x_0 after its noise was found and sampled from again."""
    denoiser = denoiser or knowing(process.schedule)
    x_1 = last(invert(denoiser, process, x_0, times, refine, cond))
    return last(sample(denoiser, process, x_1, times, cond=cond))


def rmse(x, y):
    return (x - y).square().mean((1, 2, 3)).sqrt()


# Filling in

PAIR = torch.tensor([0.4, -0.2], dtype=torch.float64)  # the means of two neighbours
KNOWN = 1.0


def filled(schedule, rho, passes, steps=100, n=1500):
    """The right of two pixels of deviation 0.5 and correlation rho, (n,), when the left is KNOWN."""
    covariance = 0.25 * torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)
    process = Gaussian(schedule, eta=1.0)
    x_0 = torch.tensor([KNOWN, math.nan], dtype=torch.float64).expand(n, 1, 1, 2)
    mask = torch.tensor([[[[False, True]]]])
    denoiser = knowing(schedule, PAIR, covariance)
    return last(inpaint(denoiser, process, x_0, mask, process.times(steps), noise(n), passes))[:, 0, 0, 1]


@every_schedule
def test_resampling_brings_the_filled_pixel_to_its_distribution_given_the_known_one(schedule):
    rho = 0.8
    mean, deviation = PAIR[1] + rho * (KNOWN - PAIR[0]), 0.5 * math.sqrt(1 - rho**2)
    once, often = filled(schedule(), rho, 1), filled(schedule(), rho, 20)
    assert often.mean().item() == pytest.approx(mean.item(), abs=0.05)  # four standard errors are 0.03
    assert often.std().item() == pytest.approx(deviation, abs=0.06)
    assert (often.mean() - mean).abs() < (once.mean() - mean).abs() / 3


@every_schedule
@pytest.mark.parametrize("passes", [1, 5])
def test_a_pixel_that_does_not_depend_on_the_known_one_keeps_its_own_distribution(schedule, passes):
    x = filled(schedule(), 0.0, passes)
    assert x.mean().item() == pytest.approx(PAIR[1].item(), abs=0.055)  # four standard errors
    assert (
        0.43 < x.std().item() < 0.53
    )  # 100 ancestral steps fall short by up to 0.06, less with more: theirs, not ours


@every_schedule
@pytest.mark.parametrize("s, t", [(0.0, 0.3), (0.2, 0.21), (0.5, 1.0)])
def test_a_degraded_picture_made_noisier_is_one_degraded_that_far(schedule, s, t):
    """Its signal and, the two noises being independent, the sum of their squares are those of the later time."""
    process, x_0 = Gaussian(schedule()), data(4)
    s, t = torch.tensor([s, t], dtype=torch.float64)
    zero, one = torch.zeros_like, torch.ones_like
    signal = noisier(process, process.degrade(x_0, s), s, t, zero)
    torch.testing.assert_close(signal, process.degrade(x_0, t))
    first = noisier(process, process.degrade(0 * x_0, s, one(x_0)), s, t, zero)
    second = noisier(process, 0 * x_0, s, t, one)
    torch.testing.assert_close(first**2 + second**2, process.degrade(0 * x_0, t, one(x_0)) ** 2)


@every_schedule
@both_etas
def test_the_kept_pixels_are_the_originals_bit_for_bit(schedule, eta):
    process, x_0 = Gaussian(schedule(), eta), data(8, (3, 4, 4)).float()
    mask = torch.arange(8 * 16).reshape(8, 1, 4, 4) % 3 == 0
    x = last(inpaint(knowing(process.schedule), process, x_0, mask, process.times(5), noise(8), 2))
    kept = ~mask.expand_as(x)
    assert torch.equal(x[kept], x_0[kept])
    assert not (x[~kept] == x_0[~kept]).any()


@every_schedule
def test_filling_everything_is_sampling_and_filling_nothing_changes_nothing(schedule):
    process, x_0 = Gaussian(schedule(), eta=0.0), data(4)
    denoiser, times, every = knowing(process.schedule), process.times(6), torch.ones(1, 1, 2, 2).bool()
    plain = sample(denoiser, process, process.prior(x_0, noise(4)), times)
    for ours, theirs in zip(inpaint(denoiser, process, x_0, every, times, noise(4)), plain, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(last(inpaint(denoiser, process, x_0, ~every, times, noise(4))), x_0)


def test_whatever_the_denoiser_is_asked_its_known_part_is_the_original_degraded_to_that_time():
    """At t = 1, after each step, and after each jump back."""
    process, x_0, asked = Gaussian(Rectified(), eta=0.0), data(4096), []
    exact = knowing(process.schedule)

    def denoiser(x, t, cond):
        asked.append(t)
        left = (x - (1 - t) * x_0)[:, :, 1]  # noise of deviation t, in 8,192 numbers
        assert left.std().item() == pytest.approx(t.item(), rel=0.04)
        assert left.mean().item() == pytest.approx(0, abs=0.045)
        return exact(x, t)

    mask = torch.tensor([[[[True, True], [False, False]]]])
    last(inpaint(denoiser, process, x_0, mask, process.times(4), noise(4096), 2))
    assert len(asked) == 7


def test_a_filled_picture_is_a_function_of_its_seed_and_not_of_its_batch_or_the_form_of_its_mask():
    process, x_0 = Gaussian(Cosine()), data(5)
    mask = torch.tensor([[[[True, False], [False, True]]]])
    fill = lambda x_0, mask, index: last(
        inpaint(knowing(process.schedule), process, x_0, mask, process.times(5), Noise(3, index), 2)
    )
    together = fill(x_0, mask, torch.arange(5))
    assert torch.equal(together, fill(x_0, mask.expand(5, 1, 2, 2), torch.arange(5)))
    torch.testing.assert_close(together[3:4], fill(x_0[3:4], mask, torch.tensor([3])), atol=1e-12, rtol=0)
    assert not torch.equal(together, fill(x_0, mask, torch.arange(5, 10)))


def test_each_step_but_the_last_is_taken_resample_times():
    process, asked = Gaussian(Rectified()), []
    denoiser = lambda x, t, cond: asked.append(float(t)) or 0 * x
    states = list(inpaint(denoiser, process, data(2), torch.ones(1, 1, 2, 2).bool(), process.times(4), noise(2), 3))
    assert asked == [1.0] * 3 + [0.75] * 3 + [0.5] * 3 + [0.25]
    assert len(states) == 4


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("averages mix known and unknown", {"process": cold}),
        ("starts at t = 1, not 0.5", {"times": torch.tensor([0.5, 0.0])}),
    ],
)
def test_what_cannot_be_filled_in_is_refused(words, change):
    process = Gaussian(Rectified())
    right = {"process": process, "x_0": torch.zeros(2, 1, 2, 2), "mask": torch.ones(1, 1, 2, 2).bool()}
    with pytest.raises(AssertionError, match=words):
        next(inpaint(lambda x, t, cond: x, **{**right, "times": process.times(3), "noise": noise(2), **change}))


# Variations


@both_etas
@pytest.mark.parametrize("loop", [sample, heun, multistep])
@pytest.mark.parametrize(
    "schedule, closeness", [(Cosine, 1e-12), (Rectified, 1e-12), (LinearBeta, 0.02)]
)  # its alpha ends at 0.006
def test_a_variation_of_strength_1_is_a_plain_sample(schedule, closeness, loop, eta):
    process, x_0 = Gaussian(schedule(), eta), data(16)
    denoiser, draws = knowing(process.schedule), noise(16)
    plain = last(loop(denoiser, process, process.prior(x_0, draws), process.times(10), draws))
    varied = last(vary(denoiser, process, x_0, 1, 10, noise(16), loop=loop))
    torch.testing.assert_close(varied, plain, atol=closeness, rtol=0)


@pytest.mark.parametrize("schedule, closeness", [(Cosine, 1e-4), (Rectified, 1e-4), (LinearBeta, 0.07)])
def test_a_variation_of_hardly_any_strength_is_the_picture_itself(schedule, closeness):
    process, x_0 = Gaussian(schedule()), data(16)
    x = last(vary(knowing(process.schedule), process, x_0, 1e-9, 1, noise(16)))
    torch.testing.assert_close(x, x_0, atol=closeness, rtol=0)  # the table's first step is of deviation 0.015
    assert not torch.equal(x, x_0)


@every_schedule
@pytest.mark.parametrize("strength", [0.15, 0.5])
@both_etas
def test_a_variation_keeps_as_much_of_the_picture_as_the_theory_says(schedule, strength, eta):
    """x_0' has the distribution of data; its correlation with x_0 is that of the flow, or of the posterior."""
    process, x_0 = Gaussian(schedule(), eta), data()
    alpha, sigma = process.schedule(torch.tensor(strength))
    share = (alpha * S / (alpha**2 * S**2 + sigma**2).sqrt()).item()  # the correlation of x_0 and x_t
    x = last(vary(knowing(process.schedule), process, x_0, strength, 150, noise(len(x_0), seed=1)))
    correlation = torch.corrcoef(torch.stack([x.flatten(), x_0.flatten()]))[0, 1].item()
    assert correlation == pytest.approx(share if eta == 0 else share**2, abs=0.03)
    assert x.mean().item() == pytest.approx(M, abs=0.01)
    assert x.std().item() == pytest.approx(S, abs=0.012)


@pytest.mark.parametrize("process", [*(Gaussian(make()) for make in SCHEDULES.values()), cold])
def test_a_variation_by_a_perfect_denoiser_is_the_picture_for_every_process(process):
    x_0, asked = data(3, (1, 4, 4)), []
    denoiser = lambda x, t, cond: asked.append(float(t)) or x_0
    states = list(vary(denoiser, process, x_0, 0.75, 3, noise(3)))
    torch.testing.assert_close(states[-1], x_0, atol=1e-3, rtol=0)  # the table's alpha is not quite 1 at t = 0
    assert asked == [0.75, 0.5, 0.25] and len(states) == 3


@pytest.mark.parametrize("strength, steps", list(itertools.product([1e-9, 0.0123, 0.3, 0.7777, 1], [1, 3, 12])))
def test_the_times_of_a_discrete_process_are_distinct_multiples_of_one_over_T_from_the_nearest_to_t(strength, steps):
    process = Gaussian(LinearBeta(1000))
    first = max(1, round(1000 * strength))
    if steps > first:
        with pytest.raises(AssertionError, match=f"1 to {first} steps, not {steps}"):
            process.times(steps, start=strength)
        return
    times = process.times(steps, start=strength)
    assert torch.equal(times, (times * 1000).round() / 1000)
    assert times[0] * 1000 == first and times[-1] == 0 and len(times) == steps + 1 and (times.diff() < 0).all()
    if strength == 1:
        assert torch.equal(times, process.times(steps))


@pytest.mark.parametrize("strength", [0, -0.1, 1.01, math.nan, math.inf])
def test_impossible_strengths_are_refused(strength):
    with pytest.raises(AssertionError, match="above 0, up to 1"):
        vary(lambda x, t, cond: x, Gaussian(Rectified()), data(2), strength, 5, noise(2))


@pytest.mark.parametrize("process, steps", [(Gaussian(Rectified()), 0), (cold, 0), (cold, 3)])
def test_impossible_numbers_of_steps_from_the_middle_are_refused(process, steps):
    with pytest.raises(AssertionError, match="from t = 0.5 "):
        vary(lambda x, t, cond: x, process, data(2), 0.5, steps, noise(2))


# Between two latents


def test_the_arc_is_walked_at_even_speed_and_at_constant_distance_from_0():
    a, b = latents(6)
    b = b * (a.flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1))[:, None, None, None]
    norm, angle = (
        lambda x: x.flatten(1).norm(dim=1),
        lambda x, y: ((x * y).flatten(1).sum(1) / norm(x) / norm(y)).clamp(-1, 1).acos(),
    )
    for weight in (0.0, 0.1, 0.5, 0.9, 1.0):
        x = slerp(a, b, weight)
        torch.testing.assert_close(norm(x), norm(a))
        torch.testing.assert_close(angle(x, b), (1 - weight) * angle(a, b), atol=1e-6, rtol=0)
        near = slerp(a, b, 0.01)
        torch.testing.assert_close(norm(slerp(a, near, weight)), norm(a), atol=1e-12, rtol=0)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)


def test_halfway_between_two_noises_is_as_strong_as_noise_where_the_straight_line_loses_a_third():
    a, b = latents(64, (1, 28, 28), torch.float32)
    assert slerp(a, b, 0.5).std().item() == pytest.approx(1, abs=0.01)
    assert a.lerp(b, 0.5).std().item() == pytest.approx(math.sqrt(0.5), abs=0.01)


def test_where_no_arc_is_the_shortest_the_line_is_straight():
    (a, other), weight = latents(3), 0.25
    for b in (a, 2 * a, -a, a + 1e-9 * other):
        torch.testing.assert_close(slerp(a, b, weight), a.lerp(b, weight), atol=1e-8, rtol=0)
    assert torch.equal(slerp(0 * a, 0 * a, weight), 0 * a)


def test_every_sample_has_its_own_arc_and_weight():
    a, b = latents(4, dtype=torch.float32)
    weights = torch.tensor([0.0, 0.3, 0.8, 1.0])
    x = slerp(a, b, weights)
    assert x.dtype == torch.float32
    for i, weight in enumerate(weights):
        torch.testing.assert_close(x[i : i + 1], slerp(a[i : i + 1], b[i : i + 1], weight))
        assert i == 0 or not torch.allclose(x[i], slerp(a, b, weights[0])[i])


def test_interpolation_has_a_latent_for_each_weight():
    a, b = (each[0] for each in latents(1, dtype=torch.float32))
    x = interpolate(a, b, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(x[0], a)
    torch.testing.assert_close(x[1], slerp(a[None], b[None], 0.25)[0])
    torch.testing.assert_close(x[2], b)


def test_latents_of_different_shapes_cannot_be_blended():
    a = torch.ones(3, 1, 2, 2)
    for blend in (lambda: slerp(a, a[:2], 0.5), lambda: interpolate(a, a[0], torch.tensor([0.5]))):
        with pytest.raises(AssertionError, match="of one shape"):
            blend()


# There and back


def noise_of(x_0, schedule):
    """Where the flow takes x_0 from t = 0 to t = 1: as many deviations from the mean as it was."""
    (a, b), (c, d) = schedule(torch.zeros(())), schedule(torch.ones(()))
    return c * M + (x_0 - a * M) * ((c**2 * S**2 + d**2) / (a**2 * S**2 + b**2)).sqrt()


@every_schedule
@pytest.mark.parametrize("refine", [0, 1])
def test_the_inverse_is_the_noise_of_the_flow(schedule, refine):
    process, x_0 = Gaussian(schedule(), eta=0.0), data(64)
    find = lambda steps: last(invert(knowing(process.schedule), process, x_0, process.times(steps), refine))
    coarse, fine = ((find(steps) - noise_of(x_0, process.schedule)).abs().max().item() for steps in (125, 500))
    assert fine < coarse / 2
    assert fine < 0.03  # of 3 deviations


@every_schedule
def test_the_round_trip_loses_less_the_more_steps_it_takes(schedule):
    process, x_0 = Gaussian(schedule(), eta=0.0), data(64)
    first, second, third = (rmse(round_trip(process, x_0, process.times(n)), x_0).mean() for n in (10, 40, 160))
    assert first > 2.5 * second > 2.5**2 * third  # first order: 4 in the limit
    assert third < 0.03


@every_schedule
@pytest.mark.parametrize("steps", [10, 50])
def test_refined_hops_are_the_exact_inverse_of_the_samplers_steps(schedule, steps):
    process, x_0 = Gaussian(schedule(), eta=0.0), data(16)
    error = lambda refine: rmse(round_trip(process, x_0, process.times(steps), refine), x_0).max()
    assert error(60) < 1e-9
    assert error(3) < error(1) < error(0)


def test_the_noise_that_made_a_picture_is_found_again():
    process = Gaussian(Cosine(), eta=0.0)
    denoiser, times, x_1 = knowing(process.schedule), process.times(20), noise(8)(torch.empty(8, 1, 2, 2)).double()
    states = [x_1, *sample(denoiser, process, x_1, times)]
    found = list(invert(denoiser, process, states.pop(), times, refine=30))
    for x, y in zip(found, reversed(states), strict=True):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("draws no noise", {"process": cold}),
        ("draws no noise", {"process": Gaussian(Rectified())}),
        ("2 steps or more", {"times": torch.tensor([1.0, 0.0])}),
    ],
)
def test_what_cannot_be_inverted_is_refused(words, change):
    process = Gaussian(Rectified(), eta=0.0)
    right = {"process": process, "x_0": data(2), "times": process.times(4)}
    with pytest.raises(AssertionError, match=words):
        next(invert(lambda x, t, cond: x, **{**right, **change}))


def test_every_edit_hands_the_denoiser_the_condition():
    """The condition moves the mean of the data by as much as it says: so the edits move, each as it must."""
    process, x_0 = Gaussian(Rectified(), eta=0.0), data(512)
    denoiser, times = knowing(process.schedule), process.times(40)
    edits = lambda cond: {
        "filled": last(inpaint(denoiser, process, x_0, torch.ones(1, 1, 2, 2).bool(), times, noise(512), cond=cond)),
        "varied": last(vary(denoiser, process, x_0, 1.0, 40, noise(512), cond=cond)),
        "noise": last(invert(denoiser, process, x_0 + cond, times, cond=cond)),
        "back": round_trip(process, x_0 + cond, times, 40, denoiser, cond) - x_0,
    }
    moved = {name: (x - edits(0.0)[name]).mean().item() for name, x in edits(0.5).items()}
    assert moved == pytest.approx({"filled": 0.5, "varied": 0.5, "noise": 0.0, "back": 0.5}, abs=1e-6)
