"""Bayes' rule, on data of which every density is known in closed form."""

import math

import pytest
import torch
from oracles import Impulses, M, S, law
from oracles import gaussian as exact_denoiser

from diffusion.method import bayes
from diffusion.method.likelihood import basis, estimate_and_trace, log_likelihood, random_signs
from diffusion.method.noise import Noise
from diffusion.method.process import Gaussian, straight_eta
from diffusion.method.sampler import last, multistep, sample
from diffusion.method.schedule import Rectified

MEANS = torch.tensor([-1.0, 0.2, 1.5])  # of each class, in every latent
DEVIATION, DIM = 0.8, 4
PROCESS = Gaussian(Rectified(), eta=0.0)


def denoiser(x_t, t, cond=None):
    """The exact one of latents N(MEANS[y], DEVIATION^2)."""
    return exact_denoiser(Rectified(), MEANS[cond].reshape(-1, 1, 1, 1), DEVIATION)(x_t, t)


def latents(n, seed=0):
    """Labels (N,), and latents (N, DIM, 1, 1) of them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    noise = torch.randn(n, DIM, 1, 1, generator=generator)
    return labels, MEANS[labels][:, None, None, None] + DEVIATION * noise


def normal(x, mean, variance):
    """log N(x; mean, variance) summed over all but the first axis."""
    terms = (x.double() - mean) ** 2 / variance + math.log(2 * math.pi * variance)
    return -terms.flatten(1).sum(1) / 2


def blurred(x, blur=bayes.LATENT_SPAN[0]):
    """log p(x | y), (N, 3), of the blurred data."""
    return torch.stack([normal(x, mean, DEVIATION**2 + blur**2) for mean in MEANS.double()], 1)


stream = lambda place: Noise(5, place)


def test_the_density_of_a_latent_by_the_exact_trace_is_that_of_the_blurred_data():
    _, x = latents(20)
    pairs = bayes.every_pair(20, 3)
    found = bayes.log_likelihoods(denoiser, PROCESS, x, pairs, stream, steps=100).reshape(20, 3)
    torch.testing.assert_close(found, blurred(x), atol=0.15, rtol=0)  # the prior is N(0, 200^2) for every class
    asked = bayes.log_likelihoods(denoiser, PROCESS, x, pairs, stream, steps=600, span=(0.05, 1e4)).reshape(20, 3)
    torch.testing.assert_close(asked, blurred(x), atol=0.02, rtol=0)


def test_the_exact_trace_is_the_mean_over_all_random_ones():
    x = torch.randn(3, DIM, 1, 1)
    twist = torch.randn(DIM, DIM)  # off the diagonal, where random probes err
    bent = lambda x_t, t, cond: torch.einsum("ij,bjhw->bihw", twist, x_t.sin())
    _, exactly = estimate_and_trace(bent, PROCESS, x, torch.tensor(0.3), basis(x), None)
    alpha = PROCESS.schedule(torch.tensor(0.3))[0]
    by_hand = alpha * (twist.diag()[:, None, None] * (alpha * x).cos()).sum((1, 2, 3))
    torch.testing.assert_close(exactly, by_hand.double(), atol=1e-5, rtol=0)
    every_sign = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * DIM)[:, None, :, None, None].expand(
        -1, 3, -1, 1, 1
    )
    _, mean = estimate_and_trace(bent, PROCESS, x, torch.tensor(0.3), every_sign.contiguous(), None)
    torch.testing.assert_close(mean, exactly, atol=1e-5, rtol=0)


def test_a_probe_is_the_same_along_the_path_and_for_every_class():
    seen, (_, x) = [], latents(4)

    class Watched(Noise):
        def __call__(self, like):
            seen.append(like.shape)
            return super().__call__(like)

    bayes.log_likelihoods(denoiser, PROCESS, x, bayes.every_pair(4, 3), lambda i: Watched(5, i), steps=9, probes=2)
    assert seen == [(12, DIM, 1, 1)] * 2  # two draws in all, not two a step
    signs = random_signs(x[[1, 1, 1]], Noise(5, torch.tensor([1, 1, 1])), 1)
    assert torch.equal(signs[0, 0], signs[0, 1]) and torch.equal(signs[0, 0], signs[0, 2])


def test_stages_answer_as_the_exhaustive_computation_and_count_the_prior():
    labels, x = latents(300)
    log_prior, asked = torch.tensor([0.2, 0.5, 0.3]).double().log(), {}

    def density(pairs, probes):
        asked[probes] = len(pairs)
        return bayes.log_likelihoods(denoiser, PROCESS, x, pairs, stream, steps=20, probes=probes)

    exhaustive = density(bayes.every_pair(300, 3), None).reshape(300, 3)
    staged = bayes.in_stages(density, 300, log_prior)
    assert asked[1] == 900 and 0 < asked[None] < asked[8] < 900
    answers = (exhaustive + log_prior).argmax(1)
    assert torch.equal((staged + log_prior).argmax(1), answers)
    assert (answers == (blurred(x) + log_prior).argmax(1)).sum() >= 298  # 20 steps err by some hundredths of a nat
    assert not torch.equal(answers, exhaustive.argmax(1))  # or the prior would change nothing here
    plain, _ = bayes.accuracies(staged + log_prior, labels)
    assert plain > 0.75


def test_what_is_decided_stays_and_what_is_far_is_left_out():
    coarse, asked = torch.tensor([[0.0, -1.0, -9.0], [0.0, -9.0, -9.0]]).double(), []
    found = bayes.refined(coarse, torch.zeros(3), lambda pairs: asked.append(pairs) or torch.tensor([-5.0, -4.0]), 3.0)
    assert asked[0].tolist() == [[0, 0], [0, 1]]
    assert found.tolist() == [[-5.0, -4.0, -math.inf], [0.0, -math.inf, -math.inf]]


# --- A linear codec: x = z mixed + noise, so that p(z | x), p(x | y) and the limit of the bound are known ---

MIX = torch.tensor([[1.0, 0.5, 0.0, -0.3], [0.0, 1.2, 0.4, 0.1], [0.7, 0.0, 0.9, 0.2], [0.1, -0.4, 0.0, 1.1]])
NOISE = 0.5  # standard deviation of x given z


def linear(n=200):
    labels, z = latents(n, seed=1)
    x = torch.einsum("ij,bjhw->bihw", MIX, z)
    return labels, x + NOISE * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))


def marginal(x):
    """log p(x | y), (N, 3), exactly."""
    covariance = DEVIATION**2 * MIX @ MIX.T + NOISE**2 * torch.eye(4)
    kinds = [torch.distributions.MultivariateNormal(MIX @ mean.expand(4), covariance) for mean in MEANS]
    return torch.stack([kind.log_prob(x.flatten(1)) for kind in kinds], 1).double()


def bounds(x, counts, seed=0):
    """The importance-weighted bound for each number of draws, from a q that knows x but no label."""
    precision = MIX.T @ MIX / NOISE**2 + torch.eye(4) / 2
    variance = (1.5 / precision.diag()).log()[:, None, None]  # a little wider than it is, and without correlations
    mean = torch.einsum("ij,bjhw->bihw", torch.linalg.solve(precision, MIX.T / NOISE**2), x)
    generator, most = torch.Generator().manual_seed(seed), max(counts)
    z = mean + (variance / 2).exp() * torch.randn(most, *mean.shape, generator=generator)
    log_q = bayes.log_normal(z, mean, variance.expand_as(mean))
    log_p_x = bayes.log_normal(torch.einsum("ij,sbjhw->sbihw", MIX, z), x, torch.full_like(x, 2 * math.log(NOISE)))
    spread = torch.full_like(x, 2 * math.log(DEVIATION))
    log_p_z = torch.stack([bayes.log_normal(z, torch.full_like(x, m), spread) for m in MEANS.tolist()], 2)
    return [bayes.importance_weighted(log_p_x[:k], log_p_z[:k], log_q[:k]) for k in counts]


def test_the_importance_weighted_bound_rises_to_the_likelihood():
    _, x = linear()
    truth = marginal(x)
    means = [(truth - bound).mean().item() for bound in bounds(x, (1, 16, 256, 4096))]
    assert means[0] > means[1] > means[2] > means[3] > -0.01  # below the truth in the mean, and rising
    assert means[0] > 0.5 and means[3] < 0.02
    assert (truth - bounds(x, (20_000,))[0]).abs().max() < 0.5


def test_labels_by_the_bound_are_those_of_the_true_likelihood():
    labels, x = linear()
    truth = bayes.accuracies(marginal(x), labels)[0]
    one, many = (bayes.accuracies(bound, labels)[0] for bound in bounds(x, (1, 1000)))
    assert many == pytest.approx(truth, abs=0.015) and one <= many


# --- Pixels ---


def test_the_errors_of_a_denoiser_of_points_are_their_distances():
    """Data is one point m a class: eps - epshat is (x_0 - m) alpha / sigma, and its integral over u is known."""
    points = torch.tensor([-0.4, 0.0, 0.5])
    knows = lambda x_t, t, cond: points[cond][:, None, None, None].expand_as(x_t)
    x_0, span = 0.3 * torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)), (0.5, 5.0)
    noise = Noise(0, torch.arange(40))
    found = bayes.diffusion_classifier(knows, PROCESS, x_0, 3, noise, rounds=1, levels=400, span=span)
    distance = torch.stack([(x_0 - m).double().square().flatten(1).sum(1) for m in points], 1)
    expected = -distance * (span[0] ** -2 - span[1] ** -2) / 2
    left = found.isfinite()
    torch.testing.assert_close(found[left], expected[left], rtol=0.02, atol=0.02)
    assert torch.equal(found.argmax(1), distance.argmin(1)) and not left.all()  # some were left out, rightly


def test_the_draws_of_an_image_are_the_same_for_every_class():
    seen = {}

    def watching(x_t, t, cond):
        for each, label in zip(zip(t.tolist(), x_t.sum((1, 2, 3)).tolist()), cond.tolist()):
            seen.setdefault(label, set()).add(each)
        return x_t

    bayes.diffusion_classifier(watching, PROCESS, torch.rand(3, 1, 2, 2), 4, Noise(0, torch.arange(3)), rounds=1)
    assert all(each == seen[0] and len(each) == 3 * 8 for each in seen.values())


# --- Labels ---


def test_the_prior_is_that_of_the_training_labels():
    prior = bayes.class_prior(torch.tensor([0, 0, 0, 2]), 4).exp()
    assert prior.tolist() == [0.75, 0.0, 0.25, 0.0]


def test_plain_and_balanced_accuracy_and_confusion_are_counts():
    posterior = torch.eye(3).double()[[0, 0, 0, 1, 2, 2]]
    labels = torch.tensor([0, 0, 0, 0, 1, 2])
    assert bayes.accuracies(posterior, labels) == pytest.approx((4 / 6, (3 / 4 + 0 + 1) / 3))
    assert bayes.confusion(posterior, labels).tolist() == [[3, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_a_mixture_of_one_gaussian_is_the_gaussian():
    labels, x = latents(6000)
    _, test = latents(50, seed=9)
    found, truth = bayes.mixture_log_likelihoods(x.flatten(1), labels, test.flatten(1), 1), blurred(test, blur=0.0)
    near = truth > truth.max(1, keepdim=True).values - 8  # far out, the error of a fitted variance grows
    torch.testing.assert_close(found[near], truth[near], atol=0.6, rtol=0)


# --- Noise on the way ---


def sampled(loop, diffusion, steps):
    """Mean and deviation of what a sampler draws of the exact denoiser, known without drawing."""
    process = Gaussian(Rectified(), eta=straight_eta(diffusion))
    times, x = process.times(steps), torch.zeros(steps + 2, 1, 1, 1, dtype=torch.float64)
    impulses = Impulses()
    return law(last(loop(exact_denoiser(Rectified()), process, impulses(x), times, impulses)))


@pytest.mark.parametrize("diffusion", [0.0, 0.5, 1.5, 2.8])
@pytest.mark.parametrize("loop", [sample, multistep])
def test_whatever_the_diffusion_the_samples_have_the_same_mean_and_deviation(loop, diffusion):
    coarse, fine = (sampled(loop, diffusion, steps) for steps in (50, 400))
    assert fine == pytest.approx((M, S), abs=0.004)
    assert abs(fine[1] - S) < abs(coarse[1] - S) / 3  # it converges, at least as fast as the steps


def test_eta_makes_the_noise_of_a_small_step_diffusion_t():
    for diffusion in (0.5, 2.0):
        process, t, h = Gaussian(Rectified(), eta=straight_eta(diffusion)), torch.tensor(0.6, dtype=torch.float64), 1e-5
        x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        drawn = process.step(x, x, t, t - h, noise=torch.ones_like)
        assert drawn.item() / h**0.5 == pytest.approx(diffusion * 0.6, rel=1e-3)  # g sqrt(h)


def test_the_flow_of_a_blurred_gaussian_does_not_depend_on_who_asks():
    _, x = latents(6)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    together = log_likelihood(denoiser, PROCESS, x, 20, Noise(0, torch.arange(6)), None, labels, bayes.LATENT_SPAN)
    pairs = torch.stack([torch.arange(6), labels], 1).flip(0)
    apart = bayes.log_likelihoods(denoiser, PROCESS, x, pairs, stream, steps=20)
    torch.testing.assert_close(apart.flip(0), together)
