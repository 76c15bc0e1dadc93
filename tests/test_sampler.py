"""Samplers against the exact denoiser of Gaussian data N(m, s^2), where everything is known in closed form."""

import itertools
import math

import pytest
import torch
from torch import nn

from diffusion.errors import UserError
from diffusion.experiment.build import build
from diffusion.experiment.config import Config
from diffusion.method.denoiser import TARGETS, Denoiser
from diffusion.method.noise import Noise
from diffusion.method.process import Gaussian, Process
from diffusion.method.sampler import last, sample
from diffusion.method.schedule import Cosine, LinearBeta, Rectified

M, S, N = 0.4, 0.3, 4096
SCHEDULES = {"linear": LinearBeta, "cosine": Cosine, "rectified": Rectified}
POSSIBLE = [(s, t) for s, t in itertools.product(SCHEDULES, TARGETS) if s == "linear" or t != "eps"]


class Oracle(nn.Module):
    """The best network there is for data N(M, S^2): the conditional mean of the target given x_t."""

    def __init__(self, schedule, target):
        super().__init__()
        self.schedule, self.coefficients = schedule, TARGETS[target]

    def forward(self, x, t, cond=None):
        alpha, sigma = (each.reshape(-1, 1, 1, 1) for each in self.schedule(t))
        p, q = self.coefficients(alpha, sigma)
        deviation = (x - alpha * M) / (alpha**2 * S**2 + sigma**2)
        return p * (M + alpha * S**2 * deviation) + q * sigma * deviation


def draw(schedule, target="x_0", steps=250, eta=0.0, variance="posterior", n=N):
    process = Gaussian(schedule, eta, variance)
    noise = Noise(0, torch.arange(n))
    x = process.prior(torch.empty(n, 1, 2, 2), noise)
    denoiser = Denoiser(Oracle(schedule, target), schedule, target)
    return last(sample(denoiser, process, x, process.times(steps), noise))


@pytest.mark.parametrize("eta, variance", [(0.0, "posterior"), (0.5, "posterior"), (1.0, "posterior"), (1.0, "beta")])
@pytest.mark.parametrize("schedule, target", POSSIBLE)
def test_every_sampler_lands_on_mean_and_deviation_for_every_schedule_and_target(schedule, target, eta, variance):
    x = draw(SCHEDULES[schedule](), target, steps=500, eta=eta, variance=variance)
    # 16,384 numbers: four standard errors are 0.009 of the mean, 0.007 of the deviation; the rest is the step's error
    assert x.mean().item() == pytest.approx(M, abs=0.015)
    assert x.std().item() == pytest.approx(S, abs=0.015)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_error_falls_with_the_number_of_steps(schedule, eta):
    errors = [abs(draw(SCHEDULES[schedule](), steps=n, eta=eta).std().item() - S) for n in (5, 20, 80)]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]


@pytest.mark.parametrize("steps, expected", [(10, 0.181), (20, 0.236), (50, 0.275), (100, 0.288)])
def test_ddim_reproduces_the_known_shortfall_on_linear_betas(steps, expected):
    assert draw(LinearBeta(), "eps", steps).std().item() == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("schedule, target", POSSIBLE)
def test_a_perfect_denoiser_returns_x_0(schedule, target):
    """One that knows x_0: whatever the target, one step or many, DDIM ends on it."""
    schedule = SCHEDULES[schedule]()
    x_0, process = torch.rand(4, 1, 3, 3) - 0.5, Gaussian(schedule, eta=0)
    x_1 = process.degrade(x_0, torch.ones(4), torch.randn_like(x_0))
    for steps in (1, 7):
        x = last(sample(lambda x, t, cond: x_0, process, x_1, process.times(steps)))
        torch.testing.assert_close(
            x, x_0, atol=0.05 if schedule.timesteps else 1e-5, rtol=0
        )  # the table ends at 0.9999


@pytest.mark.parametrize("schedule, target", POSSIBLE)
def test_what_the_network_regresses_is_what_the_denoiser_inverts(schedule, target):
    """A network that is exactly its target has loss 0 and makes a denoiser that is exactly x_0."""
    schedule, x_0, eps = SCHEDULES[schedule](), torch.randn(8, 1, 4, 4), torch.randn(8, 1, 4, 4)
    for t in (torch.full((8,), 0.01), torch.rand(8).clamp(0.1), torch.ones(8)):
        x_t = Gaussian(schedule).degrade(x_0, t, eps)
        alpha, sigma = (each.reshape(-1, 1, 1, 1).float() for each in schedule(t))
        p, q = TARGETS[target](alpha, sigma)
        denoiser = Denoiser(lambda x, t, c, answer=p * x_0 + q * eps: answer, schedule, target)
        assert denoiser.loss(x_0, eps, x_t, t).item() < 1e-7
        torch.testing.assert_close(denoiser(x_t, t), x_0, atol=2e-3, rtol=0)  # eps at t = 1 divides by alpha = 0.006


@pytest.mark.parametrize("schedule", ["cosine", "rectified"])
def test_eps_is_refused_where_it_cannot_be_inverted(schedule):
    with pytest.raises(UserError, match="use v, velocity or x_0"):
        build(Config(schedule=schedule, target="eps"))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_with_the_true_x_0_moves_along_the_degradation(schedule):
    """D(x_0, t) steps to D(x_0, s) with the same noise: DDIM, Bansal's Algorithm 2 and Euler's step in one."""
    process = Gaussian(SCHEDULES[schedule](), eta=0)
    x_0, eps = torch.randn(5, 1, 3, 3, dtype=torch.float64), torch.randn(5, 1, 3, 3, dtype=torch.float64)
    for t, s in [(1.0, 0.6), (0.6, 0.59), (0.3, 0.0)]:
        t, s = torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
        x_t, x_s = process.degrade(x_0, t, eps), process.degrade(x_0, s, eps)
        torch.testing.assert_close(process.step(x_t, x_0, t, s), x_s, atol=1e-9, rtol=0)
        process.degrade = lambda x, t: Gaussian.degrade(process, x, t, eps)
        torch.testing.assert_close(Process.step(process, x_t, x_0, t, s), x_s, atol=1e-9, rtol=0)
        del process.degrade


def test_the_ancestral_step_is_the_papers():
    """Ho et al. (2020), equations 7 and 11, written in betas; both variances."""
    T = 1000
    beta = torch.linspace(1e-4, 0.02, T + 1, dtype=torch.float64)
    alpha_bar = (1 - beta).cumprod(0)
    x_t, eps, z = torch.randn(3, 2, 1, 4, 4, dtype=torch.float64)
    for i in (1000, 500, 2, 1):
        x_0 = (x_t - (1 - alpha_bar[i]).sqrt() * eps) / alpha_bar[i].sqrt()
        mean = (x_t - beta[i] / (1 - alpha_bar[i]).sqrt() * eps) / (1 - beta[i]).sqrt()
        deviation = {
            "beta": beta[i].sqrt(),
            "posterior": (beta[i] * (1 - alpha_bar[i - 1]) / (1 - alpha_bar[i])).sqrt(),
        }
        for variance in deviation:
            process = Gaussian(LinearBeta(T), 1.0, variance)
            t, s = (torch.tensor(j / T, dtype=torch.float64) for j in (i, i - 1))
            x_s = process.step(x_t, x_0, t, s, lambda like: z)
            expected = mean + (deviation[variance] * z if i > 1 else 0)  # none at the last step
            torch.testing.assert_close(x_s, expected, atol=1e-9, rtol=1e-9)


def test_float32_images_keep_float64_coefficients():
    """Near t = 0 the DDPM mean in float32 stays within 1e-5 of float64 (a float32 table is off by 3e-4)."""
    process, x = Gaussian(LinearBeta(), 1.0, "beta"), torch.randn(64, 1, 4, 4)
    t, s = torch.tensor(0.002, dtype=torch.float64), torch.tensor(0.001, dtype=torch.float64)
    zero = torch.zeros_like
    x_0 = (0.5 * x).double()
    exact = process.step(x.double(), x_0, t, s, zero)
    torch.testing.assert_close(process.step(x, x_0.float(), t, s, zero).double(), exact, atol=1e-5, rtol=0)


def test_a_sampler_continues_from_any_state_of_its_trajectory():
    process, denoiser = Gaussian(Rectified(), eta=0), lambda x, t, cond: 0.5 * x
    times, x_1 = process.times(10), torch.randn(3, 1, 2, 2)
    states = list(sample(denoiser, process, x_1, times))
    assert len(states) == 10
    again = list(sample(denoiser, process, states[3], times[4:]))
    for a, b in zip(again, states[4:], strict=True):
        assert torch.equal(a, b)


def test_discrete_times_are_drawn_evenly_including_t_1_and_never_0():
    process = Gaussian(LinearBeta(7))
    t = process.draw_time(Noise(0, torch.arange(70_000)))
    counts = torch.bincount((t * 7).round().long(), minlength=8)
    assert counts[0] == 0
    chi2 = ((counts[1:] - 10_000) ** 2 / 10_000).sum().item()
    assert chi2 < 22.5  # 6 degrees of freedom: one in a thousand


def test_continuous_times_fill_the_interval_without_0():
    t = Gaussian(Rectified()).draw_time(Noise(0, torch.arange(200_000)))
    assert 0 < t.min() < 1e-4 and 1 - 1e-4 < t.max() <= 1
    assert t.mean().item() == pytest.approx(0.5, abs=0.003)


@pytest.mark.parametrize("steps", [1, 3, 50, 999, 1000])
def test_times_of_a_discrete_process_are_distinct_multiples_of_one_over_T(steps):
    times = Gaussian(LinearBeta(1000)).times(steps)
    assert times[0] == 1 and times[-1] == 0 and len(times) == steps + 1
    assert (times.diff() < 0).all()
    assert torch.equal(times * 1000, (times * 1000).round())


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(AssertionError, match="1 to 1000 steps|cannot take"):
        Gaussian(LinearBeta(1000)).times(steps)


def test_schedules_are_variance_preserving_or_straight_and_monotone():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    for name, make in SCHEDULES.items():
        alpha, sigma = make()(t)
        assert alpha.dtype == torch.float64
        total = alpha + sigma if name == "rectified" else alpha**2 + sigma**2
        torch.testing.assert_close(total, torch.ones_like(t))
        assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()
    alpha, _ = Cosine()(torch.tensor([0.0, 0.5, 1.0]))  # equation 17 worked out by hand
    f = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2)
    assert alpha.tolist() == pytest.approx([1, f(0.5) / f(0), 0], abs=1e-12)


@pytest.mark.parametrize("schedule", [Cosine(), Rectified()])
def test_time_at_is_the_inverse_of_log_snr(schedule):
    t = torch.cat([torch.tensor([1e-8, 1e-5]), torch.linspace(1e-3, 1, 500)]).double()
    torch.testing.assert_close(schedule.time_at(schedule.log_snr(t)), t, atol=1e-13, rtol=0)
    assert schedule.time_at(torch.tensor([-math.inf, -800.0, 800.0, math.inf])).tolist() == [1, 1, 0, 0]


def test_time_at_of_a_table_is_the_nearest_of_its_times_after_0():
    schedule = LinearBeta(50)
    t = torch.arange(1, 51, dtype=torch.float64) / 50
    log_snr = schedule.log_snr(t)
    assert torch.equal(schedule.time_at(log_snr), t)
    assert torch.equal(schedule.time_at(log_snr + 0.4 * log_snr.diff().abs().min()), t)
    assert schedule.time_at(torch.tensor([-99.0, 99.0])).tolist() == [1, 1 / 50]
