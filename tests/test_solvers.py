"""Second-order solvers on Gaussian data, where both the flow and the law of every sampler are known exactly."""

import itertools

import pytest
import torch
from oracles import Counting, Impulses, M, S, flow, gaussian, law, log_snr_times, noise

from diffusion.experiment import sampling
from diffusion.experiment.build import build
from diffusion.experiment.config import Config
from diffusion.experiment.samplers import SAMPLERS, SamplingOptions
from diffusion.experiment.sampling import build_sampler
from diffusion.method.denoiser import Clipped
from diffusion.method.process import Gaussian
from diffusion.method.sampler import heun, last, multistep, sample
from diffusion.method.schedule import Cosine, LinearBeta, Rectified

SCHEDULES = {"linear": LinearBeta, "cosine": Cosine, "rectified": Rectified}
# For orders: a table of betas so fine that its times can stand at equal distances of log-SNR.
SMOOTH = {**SCHEDULES, "linear": lambda: LinearBeta(400_000, 1e-4 / 400, 0.02 / 400)}
LOOPS = {"ddim": sample, "heun": heun, "dpm": multistep}
Z = torch.linspace(-2, 2, 5, dtype=torch.float64)


def images(values):
    return values.reshape(-1, 1, 1, 1)


def error(loop, schedule, times):
    """How far the sample is from where the flow through each deviate Z leads: root mean square."""
    start, end = (images(flow(schedule, Z, t)) for t in (times[0], times[-1]))
    x = last(loop(gaussian(schedule), Gaussian(schedule, eta=0), start, times))
    return (x - end).square().mean().sqrt().item()


def law_of(name, schedule, steps):
    """Mean and deviation of the images that a named sampler draws: not estimated, computed."""
    loop, eta = SAMPLERS["gaussian"][name][:2]
    process, impulses = Gaussian(schedule, eta), Impulses()
    x = process.prior(torch.empty(steps + 3, 1, 1, 1, dtype=torch.float64), impulses)
    return law(last(sampling.LOOPS[loop](gaussian(schedule), process, x, process.times(steps), impulses)))


# --- Order ---


@pytest.mark.parametrize("schedule", SMOOTH)
@pytest.mark.parametrize("name, low, high", [("ddim", 1.9, 2.1), ("heun", 3.8, 4.2), ("dpm", 3.4, 4.2)])
def test_twice_the_steps_halve_the_error_of_ddim_and_quarter_that_of_heun_and_dpm(schedule, name, low, high):
    schedule = SMOOTH[schedule]()
    grids = (log_snr_times(Gaussian(schedule), 0.9, 0.02, steps) for steps in (32, 64, 128, 256))
    errors = [error(LOOPS[name], schedule, times) for times in grids]
    for a, b in itertools.pairwise(errors):
        assert low < a / b < high, errors


@pytest.mark.parametrize("steps", [5, 10, 20, 40, 80])
def test_heun_is_second_order_on_straight_lines_down_to_the_image(steps):
    """From pure noise to t = 0 in even steps, as it is used; DDIM on the same times is first order."""
    process = Gaussian(Rectified())
    errors = lambda loop: [error(loop, process.schedule, process.times(n)) for n in (steps, 2 * steps)]
    (a, b), (c, d) = errors(heun), errors(sample)
    assert 4 <= a / b < 4.3 and 1.8 < c / d < 2.1


@pytest.mark.parametrize("name, calls, gain", [("dpm", 20, 1.5), ("dpm", 100, 7), ("heun", 100, 2)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_for_as_many_network_calls_the_second_order_is_nearer(schedule, name, calls, gain):
    """Even times from 1 to 0, as they are used: both ends, where no step is small, included."""
    schedule = SCHEDULES[schedule]()
    times = Gaussian(schedule).times
    ours = error(LOOPS[name], schedule, times(calls // 2 if name == "heun" else calls))
    assert gain * ours < error(sample, schedule, times(calls))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_float32_images_lose_nothing_but_float32(schedule):
    schedule = SCHEDULES[schedule]()
    process, z = Gaussian(schedule, eta=0), noise(0, 8)(torch.empty(8, 1, 4, 4))
    for loop in LOOPS.values():
        one, two = (last(loop(gaussian(schedule), process, x, process.times(50))) for x in (z, z.double()))
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), two, atol=2e-5, rtol=0)


# --- What the solvers are ---


def test_on_straight_lines_heun_is_the_trapezoid_of_the_velocities():
    schedule, x = Rectified(), images(Z)
    denoiser = gaussian(schedule)
    velocity = lambda x, t: (x - denoiser(x, t)) / t  # dx/dt = eps - x_0
    times = Gaussian(schedule).times(7)
    states = list(heun(denoiser, Gaussian(schedule, eta=0), x, times))
    for (t, s), ours in zip(itertools.pairwise(times), states, strict=True):
        here = velocity(x, t)
        slope = (here + velocity(x + (s - t) * here, s)) / 2 if s > 0 else here
        x = x + (s - t) * slope
        torch.testing.assert_close(ours, x, atol=1e-12, rtol=0)


def test_dpm_is_the_papers_formula():
    """Lu et al. (2022), DPM-Solver++(2M), Algorithm 2, in lambda, h and r."""
    schedule = Cosine()
    process = Gaussian(schedule, eta=0)
    denoiser, times = gaussian(schedule), log_snr_times(process, 0.95, 0.05, 9)
    x = images(flow(schedule, Z, times[0]))
    states = list(multistep(denoiser, process, x, times))
    lam, known = [process.schedule.log_snr(t) for t in times], []
    for i, ours in enumerate(states, start=1):
        known.append(denoiser(x, times[i - 1]))
        h, D = lam[i] - lam[i - 1], known[-1]
        if i > 1:
            r = (lam[i - 1] - lam[i - 2]) / h
            D = (1 + 1 / (2 * r)) * known[-1] - 1 / (2 * r) * known[-2]
        (_, sigma_s), (alpha, sigma) = schedule(times[i - 1]), schedule(times[i])
        x = sigma / sigma_s * x - alpha * torch.expm1(-h) * D
        torch.testing.assert_close(ours, x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_where_nothing_is_known_of_x_0_yet_dpm_takes_plain_steps(schedule):
    """At alpha = 0 the log-SNR is -inf, yet every state is finite."""
    schedule = SCHEDULES[schedule]()
    process = Gaussian(schedule, eta=0)
    run = lambda loop: list(loop(gaussian(schedule), process, images(Z), process.times(10)))
    ours, plain = run(multistep), run(sample)
    assert all(x.isfinite().all() for x in ours)
    plainly = 1 if schedule.timesteps else 2
    assert [torch.equal(a, b) for a, b in zip(ours, plain)] == [True] * plainly + [False] * (10 - plainly)


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_network_calls_are_what_is_said(steps):
    process = Gaussian(Rectified(), eta=0)
    for loop, calls in ((sample, steps), (multistep, steps), (heun, 2 * steps - 1)):
        counting = Counting(gaussian(process.schedule))
        states = list(loop(counting, process, images(Z), process.times(steps)))
        assert len(states) == steps and len(counting.calls) == calls
        assert all(0 < t <= 1 for _, t, _ in counting.calls)  # never at t = 0, where eps is undefined


@pytest.mark.parametrize("name", SAMPLERS["gaussian"])
def test_nfe_is_how_many_network_calls_a_sampler_takes(name):
    experiment = build(Config(schedule="rectified", target="velocity", hidden=(4,)))
    sampler = build_sampler(experiment, SamplingOptions(name, steps=4))
    counting = Counting(gaussian(sampler.process.schedule))
    last(sampler.loop(counting, sampler.process, images(Z).float(), sampler.times))
    assert len(counting.calls) == sampler.nfe
    usual = len(build_sampler(experiment, SamplingOptions(name)).times) - 1
    assert usual == {"ddpm": 100, "ddim": 50, "heun": 10, "dpm": 20, "sde": 20, "consistency": 4}[name]


@pytest.mark.parametrize("name", SAMPLERS["gaussian"])
@pytest.mark.parametrize("settings", [
    {}, {"timesteps": 100}, {"timesteps": 10}, {"schedule": "cosine", "target": "v"},
    {"schedule": "rectified", "target": "velocity"},
], ids=["T 1000", "T 100", "T 10", "cosine", "rectified"])  # fmt: skip
def test_every_sampler_goes_through_distinct_times_from_1_to_0(settings, name):
    experiment = build(Config(hidden=(4,), **settings))
    T = experiment.process.timesteps
    for steps in {1, 2, 3, 4, 9, 10, 50, T or 300, None}:
        if T and steps and steps > T:
            continue
        times = build_sampler(experiment, SamplingOptions(name, steps)).times
        assert steps is None or len(times) == steps + 1
        assert times[0] == 1 and times[-1] == 0 and (times.diff() < 0).all() and times.dtype == torch.float64
        assert T is None or torch.allclose(times * T, (times * T).round(), atol=1e-9)


@pytest.mark.parametrize("loop, eta", [(sample, 0.0), (heun, 0.0), (multistep, 0.0), (sample, 1.0), (multistep, 1.0)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_perfect_denoiser_returns_x_0(schedule, loop, eta):
    """One that knows x_0: there is nothing to extrapolate, whatever the steps and the noise on the way."""
    process = Gaussian(SCHEDULES[schedule](), eta)
    draw = noise(1, 4)
    x_0 = draw(torch.empty(4, 1, 3, 3, dtype=torch.float64)).tanh() / 2
    for steps in (1, 2, 3, 10):
        x = last(loop(lambda x, t, cond: x_0, process, process.prior(x_0, draw), process.times(steps), draw))
        # a table of betas ends at alpha 0.99995, sigma 0.01 and not at the image itself
        torch.testing.assert_close(x, x_0, atol=0.05 if process.timesteps else 1e-12, rtol=0)


def test_a_condition_reaches_every_call():
    process, cond = Gaussian(Rectified(), eta=0), torch.arange(5)
    for loop in LOOPS.values():
        counting = Counting(gaussian(process.schedule))
        last(loop(Clipped(counting, -9, 9), process, images(Z), process.times(3), cond=cond))
        assert all(each is cond for _, _, each in counting.calls)


# --- The stochastic one ---


def test_the_law_computed_is_the_law_drawn():
    """Impulses against 40,000 real draws."""
    process, draw = Gaussian(Rectified(), eta=1.0), noise(0, 40_000)
    x = process.prior(torch.empty(40_000, 1, 1, 1, dtype=torch.float64), draw)
    x = last(multistep(gaussian(process.schedule), process, x, process.times(10), draw))
    mean, deviation = law_of("sde", Rectified(), 10)
    assert x.mean().item() == pytest.approx(mean, abs=4 * S / 200)
    assert x.std().item() == pytest.approx(deviation, abs=4 * S / 283)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [25, 50, 100])
def test_the_sde_solver_lands_nearer_with_half_of_ddpms_steps(schedule, steps):
    schedule = SCHEDULES[schedule]()
    (mean, ours), (_, ddpm) = law_of("sde", schedule, steps), law_of("ddpm", schedule, 2 * steps)
    assert mean == pytest.approx(M, abs=2e-3)
    assert abs(ours - S) < 0.7 * abs(ddpm - S)
    assert abs(ours - S) < 0.4 * abs(law_of("ddpm", schedule, steps)[1] - S)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_all_samplers_converge_to_the_data(schedule):
    for name in set(SAMPLERS["gaussian"]) - {"consistency"}:  # that one takes distilled networks: test_consistency
        mean, deviation = law_of(name, SCHEDULES[schedule](), 500)
        assert mean == pytest.approx(M, abs=1e-3)
        assert deviation == pytest.approx(S, abs=0.01 if name in ("ddpm", "ddim") else 0.001)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_eta_is_the_share_of_ddpms_noise_and_leaves_the_variance_of_x_s_as_it_is(schedule, eta):
    """Song et al. (2021), equations 12 and 16: a step given the true x_0 ends at deviation sigma_s, whatever eta."""
    process, ddpm = (Gaussian(SCHEDULES[schedule](), each) for each in (eta, 1.0))
    t, s = torch.tensor([0.7, 0.4], dtype=torch.float64)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    by = lambda process, eps, z: process.step(process.schedule(t)[1] * eps, zero, t, s, lambda like: z)
    kept, fresh = by(process, one, zero), by(process, zero, one)
    torch.testing.assert_close(fresh, eta * by(ddpm, zero, one), atol=1e-12, rtol=0)
    torch.testing.assert_close((kept**2 + fresh**2).sqrt(), process.schedule(s)[1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("T", [100, 250])
def test_the_karras_grid_begins_with_the_noise_that_a_short_table_has(T, monkeypatch):
    """Beginning at sigma / alpha = 80, of which T = 100 has 1.3, spent twelve of twenty steps at t > 0.87."""
    schedule = LinearBeta(T)
    process = Gaussian(schedule, 0.0)
    ours, start = process.times(20, "karras"), (-process.schedule.log_snr(torch.ones(()))).exp().item()
    monkeypatch.setattr("diffusion.method.process.KARRAS", (0.01, start))
    assert torch.equal(process.times(20, "karras"), ours)
    monkeypatch.setattr("diffusion.method.process.min", lambda high, _: 80.0, raising=False)
    assert error(multistep, schedule, ours) < 0.5 * error(multistep, schedule, process.times(20, "karras"))


def test_only_ddpm_takes_the_variance_that_a_config_names():
    """The SDE solver is exact for the posterior's variance alone."""
    coursework = build(Config(variance="beta"))
    variance = lambda *options, **more: build_sampler(coursework, SamplingOptions(*options, **more)).process.variance
    assert (variance("ddpm"), variance("ddpm", 10, variance="posterior")) == ("beta", "posterior")
    assert variance("sde") == variance("sde", 10, variance="beta") == "posterior"


# --- Against diffusers ---

T = 1000


def theirs(kind, **settings):
    """A scheduler of diffusers on the coursework's table: 1,001 betas, so that its index is ours."""
    diffusers = pytest.importorskip("diffusers")
    beta = torch.linspace(1e-4, 0.02, T + 1, dtype=torch.float64)
    known = {"num_train_timesteps": T + 1, "trained_betas": beta.numpy(), "prediction_type": "sample"}
    scheduler = getattr(diffusers, kind)(**known, **settings)
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), LinearBeta(T).alpha_bar, atol=1e-6, rtol=0)
    return scheduler


@pytest.mark.parametrize("steps", [10, 20, 50])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_and_ddpm_are_those_of_diffusers(eta, steps):
    schedule = LinearBeta(T)
    process, denoiser = Gaussian(schedule, eta), gaussian(schedule)
    times, fresh = process.times(steps), noise(3, 6)(torch.empty(6, steps, 1, 2, 2, dtype=torch.float64))
    x = x_1 = noise(2, 6)(torch.empty(6, 1, 2, 2, dtype=torch.float64))
    draws = iter(fresh.unbind(1))
    states = list(sample(denoiser, process, x_1, times, lambda like: next(draws)))
    scheduler = theirs("DDIMScheduler", clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(steps)
    for i, t in enumerate((times[:-1] * T).round().long()):
        z = fresh[:, i] if i < steps - 1 else torch.zeros_like(x)  # ours adds none in the last step
        x = scheduler.step(denoiser(x, t / T), t, x, eta=eta, variance_noise=z).prev_sample
        torch.testing.assert_close(states[i], x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [10, 20, 50])
@pytest.mark.parametrize("algorithm, eta", [("dpmsolver++", 0.0), ("sde-dpmsolver++", 1.0)])
def test_multistep_is_the_dpm_solver_of_diffusers(algorithm, eta, steps):
    schedule = LinearBeta(T)
    process, denoiser = Gaussian(schedule, eta), gaussian(schedule)
    times, fresh = process.times(steps), noise(3, 6)(torch.empty(6, steps, 1, 2, 2))
    x = x_1 = noise(2, 6)(torch.empty(6, 1, 2, 2))
    draws = iter(fresh.unbind(1))
    states = list(multistep(denoiser, process, x_1, times, lambda like: next(draws)))
    scheduler = theirs("DPMSolverMultistepScheduler", algorithm_type=algorithm, solver_order=2,
                       final_sigmas_type="sigma_min", euler_at_final=True)  # fmt: skip
    scheduler.set_timesteps(timesteps=(times[:-1] * T).round().long().tolist())
    for i, t in enumerate(scheduler.timesteps):
        z = fresh[:, i] if i < steps - 1 else torch.zeros_like(x)
        x = scheduler.step(denoiser(x, t.double() / T), t, x, variance_noise=z).prev_sample
        torch.testing.assert_close(states[i], x, atol=1e-4, rtol=0)


def test_heun_on_straight_lines_is_the_flow_matching_heun_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    schedule, x = Rectified(), noise(2, 6)(torch.empty(6, 1, 2, 2, dtype=torch.float64))
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler(num_train_timesteps=T)
    scheduler.set_timesteps(10)
    times = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1::2]]).double()
    denoiser = gaussian(schedule)
    ours = last(heun(denoiser, Gaussian(schedule, eta=0), x, times))
    for t in scheduler.timesteps:
        sigma = scheduler.sigmas[scheduler.step_index or 0].double()
        x = scheduler.step((x - denoiser(x, sigma)) / sigma, t, x).prev_sample
    torch.testing.assert_close(ours, x.to(ours), atol=1e-4, rtol=0)
