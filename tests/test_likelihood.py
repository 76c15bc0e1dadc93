"""Likelihoods against densities known in closed form: Gaussians, alone and correlated, and a mixture of two."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from diffusion.method import likelihood
from diffusion.method.averaging import Averaging
from diffusion.method.codec import Pixels
from diffusion.method.likelihood import SPAN, bits_per_dim, dequantise, flow_times, log_likelihood
from diffusion.method.noise import Noise
from diffusion.method.process import Gaussian
from diffusion.method.schedule import Cosine, LinearBeta, Rectified

M, S = 0.4, 0.3
SCHEDULES = {"linear": LinearBeta, "cosine": Cosine, "rectified": Rectified}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
COVARIANCE = 0.1 * torch.tensor([[1, 0.8, 0.1], [0.8, 1.2, 0.4], [0.1, 0.4, 0.9]], dtype=torch.float64)
MEAN = torch.tensor([0.4, -0.2, 0.1], dtype=torch.float64)


def knowing(schedule, m=M, s=S):
    """The exact denoiser of data N(m, s^2)."""

    def denoiser(x, t, cond=None):
        alpha, sigma = schedule(t)
        cond = 0.0 if cond is None else cond
        return m + cond + alpha * s**2 * (x - alpha * (m + cond)) / (alpha**2 * s**2 + sigma**2)

    return denoiser


def correlated(schedule):
    """The exact denoiser of data N(MEAN, COVARIANCE) in images of one line of three."""

    def denoiser(x, t, cond=None):
        alpha, sigma = schedule(t)
        gain = alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * torch.eye(3))
        return MEAN + (x - alpha * MEAN) @ gain.T

    return denoiser


def exact_likelihood(denoiser, process, x_0, steps, cond=None):
    """With every pattern of signs for a probe, of which one in two is the other's opposite: their mean is the trace."""
    dim = x_0[0].numel()
    patterns = iter(itertools.product([1.0], *[[1.0, -1.0]] * (dim - 1)))
    noise = lambda like: torch.tensor(next(patterns)).reshape(like[:1].shape).expand_as(like)
    return log_likelihood(denoiser, process, x_0, steps, noise, 2 ** (dim - 1), cond)


def blur(process, steps):
    """The variance of the noise that a likelihood leaves on the data."""
    return (-2 * process.schedule.log_snr(flow_times(process, steps)[0])).exp()


def data(n=32, shape=(1, 2, 2)):
    return M + S * Noise(7, torch.arange(n))(torch.empty(n, *shape, dtype=torch.float64))


def errors(schedule, steps, x_0):
    """What a likelihood of data N(M, S^2) is off by, (B,)."""
    process = Gaussian(schedule)
    exact = Normal(M, (S**2 + blur(process, steps)).sqrt()).log_prob(x_0).flatten(1).sum(1)
    return exact_likelihood(knowing(schedule), process, x_0, steps) - exact


@every_schedule
def test_the_likelihood_of_gaussian_data_is_the_gaussians(schedule):
    off = errors(schedule(), 200, data())
    assert off.abs().max() < 0.02  # nats, of 4 numbers up to 3 deviations from their mean


@every_schedule
def test_the_error_falls_with_the_square_of_the_steps(schedule):
    coarse, fine, finer = (errors(schedule(), steps, data()).abs().mean() for steps in (15, 30, 60))
    assert coarse > 3.5 * fine > 3.5**2 * finer


@every_schedule
def test_the_blur_is_that_of_the_span_or_of_the_tables_first_step(schedule, monkeypatch):
    """A density this narrow shows what the noise left on it adds: without it the error would be 0.1 nats and more."""
    schedule, s = schedule(), 0.02
    process = Gaussian(schedule)
    x_0 = torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64)
    monkeypatch.setattr(likelihood, "SPAN", (0.01, 1e3))
    found = exact_likelihood(knowing(schedule, s=s), process, x_0, 300).item()
    sbar = (1 - schedule.alpha_bar[1]).sqrt() / schedule.alpha_bar[1].sqrt() if process.timesteps else 0.01
    assert found == pytest.approx(-math.log(math.hypot(s, sbar) * math.sqrt(2 * math.pi)), abs=0.02)


@every_schedule
def test_the_likelihood_of_correlated_data_is_that_of_the_covariance(schedule):
    process = Gaussian(schedule())
    exact = MultivariateNormal(MEAN, COVARIANCE + blur(process, 150) * torch.eye(3))
    x_0 = MEAN + 0.3 * Noise(1, torch.arange(16))(torch.empty(16, 1, 1, 3, dtype=torch.float64))
    found = exact_likelihood(correlated(process.schedule), process, x_0, 150)
    torch.testing.assert_close(found, exact.log_prob(x_0[:, 0, 0]), atol=0.03, rtol=0)


def test_a_density_with_two_peaks_is_followed_and_sums_to_1():
    """Here the denoiser is not linear, and its derivative differs from place to place."""
    schedule, means, s = Rectified(), torch.tensor([-0.5, 0.6], dtype=torch.float64), 0.15
    shares = torch.tensor([0.3, 0.7], dtype=torch.float64)

    def denoiser(x, t, cond=None):
        alpha, sigma = schedule(t)
        spread = alpha**2 * s**2 + sigma**2
        away = x[..., None] - alpha * means
        weights = (shares.log() - away**2 / (2 * spread)).softmax(-1)
        return (weights * (means + alpha * s**2 * away / spread)).sum(-1)

    x_0 = torch.linspace(-1.5, 1.6, 311, dtype=torch.float64)
    found = exact_likelihood(denoiser, Gaussian(schedule), x_0.reshape(-1, 1, 1, 1), 200).exp()
    exact = (shares * Normal(means, s).log_prob(x_0[:, None]).exp()).sum(1)
    torch.testing.assert_close(found, exact, atol=0.02, rtol=0)  # the peaks are 0.8 and 1.9 high
    assert torch.trapezoid(found, x_0).item() == pytest.approx(1, abs=0.005)


def test_the_mean_over_random_probes_is_the_exact_likelihood():
    process, n = Gaussian(Cosine()), 4096
    x_0 = torch.tensor([0.6, 0.1, -0.2], dtype=torch.float64).reshape(1, 1, 1, 3)
    denoiser = correlated(process.schedule)
    exact = exact_likelihood(denoiser, process, x_0, 30)
    many = x_0.expand(n, 1, 1, 3)
    once, often = (log_likelihood(denoiser, process, many, 30, Noise(2, torch.arange(n)), probes=k) for k in (1, 4))
    for found in (once, often):
        assert found.std() > 0.1
        assert abs(found.mean() - exact).item() < 4 * found.std().item() / math.sqrt(n)
    assert (once.var() / often.var()).item() == pytest.approx(4, rel=0.15)


def test_a_likelihood_is_a_function_of_image_and_seed_and_not_of_its_batch():
    process = Gaussian(Rectified())
    find = lambda x_0, index: log_likelihood(correlated(process.schedule), process, x_0, 10, Noise(5, index))
    x_0 = data(6, (1, 1, 3))
    together = find(x_0, torch.arange(6))
    torch.testing.assert_close(together[4:5], find(x_0[4:5], torch.tensor([4])), atol=1e-10, rtol=0)
    assert not torch.allclose(together, find(x_0, torch.arange(6, 12)), atol=1e-3)


@pytest.mark.parametrize("probes", [1, None])
def test_of_no_image_there_is_no_likelihood(probes):
    process, x_0 = Gaussian(Rectified()), data(0, (1, 1, 3))
    nats = log_likelihood(correlated(process.schedule), process, x_0, 3, Noise(0, torch.arange(0)), probes)
    assert nats.shape == (0,)


def test_float32_images_lose_little():
    process, x_0 = Gaussian(Rectified()), data()
    wide, narrow = (exact_likelihood(knowing(process.schedule), process, each, 50) for each in (x_0, x_0.float()))
    torch.testing.assert_close(narrow, wide, atol=1e-3, rtol=0)


def test_the_condition_is_told():
    process, x_0 = Gaussian(Rectified()), data()
    plain = exact_likelihood(knowing(process.schedule), process, x_0, 100)
    moved = exact_likelihood(knowing(process.schedule), process, x_0 + 0.5, 100, cond=torch.tensor(0.5))
    torch.testing.assert_close(moved, plain, atol=0.01, rtol=0)


def test_a_network_is_left_as_it_was_and_may_be_asked_where_gradients_are_off():
    process, network = Gaussian(Rectified()), nn.Conv2d(1, 1, 1)
    denoiser, x_0 = lambda x, t, cond: network(x.float()).double() * (1 - t), data(3)
    outside = exact_likelihood(denoiser, process, x_0, 5)
    with torch.no_grad():
        inside = exact_likelihood(denoiser, process, x_0, 5)
    assert torch.equal(outside, inside) and not outside.requires_grad
    assert all(each.grad is None for each in network.parameters())


@pytest.mark.parametrize("schedule", [Cosine, Rectified])
def test_the_times_of_a_continuous_flow_are_even_in_log_sbar_over_the_span(schedule):
    process = Gaussian(schedule())
    times = flow_times(process, 20)
    u = torch.linspace(math.log(SPAN[0]), math.log(SPAN[1]), 21, dtype=torch.float64)
    torch.testing.assert_close(-process.schedule.log_snr(times), u, atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [1, 10, 5000])
def test_the_times_of_a_discrete_flow_are_on_its_table_without_0_and_reach_its_ends(steps):
    times = flow_times(Gaussian(LinearBeta(200)), steps)
    assert torch.equal(times, (times * 200).round() / 200)
    assert times[0] == 1 / 200 and times[-1] == 1
    assert (times.diff() > 0).all() and len(times) <= min(steps + 1, 200)
    assert len(times) == 200 or steps < 5000


def test_bits_a_number_are_those_of_information_theory():
    assert bits_per_dim(torch.zeros(1), 784, 1 / 256).item() == pytest.approx(8)  # all levels as likely as each other
    nats = -0.5 * math.log(2 * math.pi * math.e * S**2)  # mean log-likelihood of a Gaussian of deviation S
    expected = math.log2(S * math.sqrt(2 * math.pi * math.e) * 256)
    assert bits_per_dim(torch.tensor(5 * nats), 5, 1 / 256).item() == pytest.approx(expected, rel=1e-6)
    wider = torch.tensor(5 * (nats - math.log(2)))  # the same in units half as long
    assert bits_per_dim(wider, 5, 2 / 256).item() == pytest.approx(expected, rel=1e-6)


@every_schedule
def test_bits_of_grey_levels_are_their_entropy(schedule):
    """From bytes to bits: levels of a Gaussian cut into bins, whose code length is a sum over 256 bins."""
    edges = Normal(0.5, 0.1).cdf(torch.arange(257, dtype=torch.float64) / 256)
    p = edges.diff().clamp(min=1e-300)
    entropy = -(p * p.log2()).sum().item()
    spread = (p * (p.log2() + entropy) ** 2).sum().sqrt().item()  # the deviation of one number's code length

    n, noise, codec = 512, Noise(0, torch.arange(512)), Pixels(-1, 1, (1, 4, 4))
    levels = ((0.5 + 0.1 * noise(torch.empty(n, 1, 4, 4))) * 256).floor().clamp(0, 255).to(torch.uint8)
    process = Gaussian(schedule())
    x_0 = codec.encode(dequantise(levels, noise))
    nats = log_likelihood(knowing(process.schedule, m=0.0, s=0.2), process, x_0, 100, noise)
    bits = bits_per_dim(nats, 16, (codec.high - codec.low) / 256).mean().item()
    assert bits == pytest.approx(entropy, abs=4 * spread / math.sqrt(16 * n) + 0.005)


def test_dequantised_levels_are_spread_evenly_over_their_own_bins():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(200, 1, 16, 16)
    x = dequantise(levels, Noise(0, torch.arange(200)))
    u = 256 * x.double() - levels
    assert u.min() >= 0 and u.max() <= 1
    assert u.mean().item() == pytest.approx(1 / 2, abs=0.006)  # four standard errors of 51,200 numbers
    assert u.std().item() == pytest.approx(math.sqrt(1 / 12), abs=0.004)
    assert torch.equal(x[5:6], dequantise(levels[5:6], Noise(0, torch.tensor([5]))))
    assert abs(torch.corrcoef(u.flatten(1)[:2])[0, 1].item()) < 0.25  # each image its own


def test_what_has_no_likelihood_is_refused(monkeypatch):
    estimate = lambda process: log_likelihood(lambda x, t, cond: x, process, data(2), 3, Noise(0, torch.arange(2)))
    with pytest.raises(AssertionError, match="Gaussian noise"):
        estimate(Averaging("row", torch.arange(2)[:, None]))
    monkeypatch.setattr(likelihood, "SPAN", (1e-4, 1e-3))
    with pytest.raises(AssertionError, match="no two noise levels within"):
        estimate(Gaussian(LinearBeta()))


def test_images_without_levels_are_refused():
    with pytest.raises(AssertionError, match="uint8"):
        dequantise(torch.rand(2, 1, 2, 2), Noise(0, torch.arange(2)))
