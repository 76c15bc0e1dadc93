"""Processes: how an image is degraded, what a fully degraded one looks like, and one step back. Time t in [0, 1]."""

from collections.abc import Callable
from math import inf

import torch
from torch import Tensor, nn

from diffusion.method.noise import Noise
from diffusion.method.schedule import Schedule

KARRAS = (0.01, 80.0)  # sigma / alpha at the last and at the first step of that grid
Draw = Callable[[Tensor], Tensor]  # gives standard normal numbers of the shape of its argument
Eta = float | Callable[[Tensor], Tensor]


def append_dims(values: Tensor | float, like: Tensor) -> Tensor:
    """Per-sample numbers (B,) or a scalar (), shaped to multiply `like` (B, C, H, W)."""
    values = torch.as_tensor(values)
    return values.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1)) if values.dim() else values


def straight_eta(diffusion: float) -> Eta:
    """The eta of an SDE on straight lines whose noise grows by g = diffusion t; at most 1 for diffusion up to sqrt(8).

    DDPM's SDE has g^2 = 2 t / (1 - t) there, and eta^2 scales that (Song et al. (2021), section 4.1, for small steps).
    """
    return lambda t: diffusion * (t * (1 - t) / 2).sqrt()


class Process(nn.Module):
    """The contract, and the step that serves every deterministic degradation."""

    timesteps: int | None = None  # T of a discrete process, None for continuous time
    adds_noise: bool = True  # whether degrade has a use for eps

    @property
    def most_steps(self) -> int | None:
        """The largest number of steps that `times` takes; None: any number."""
        return self.timesteps

    @property
    def has_prior(self) -> bool:
        """Whether `prior` can draw; if not, it needs `fit` first."""
        return True

    def degrade(self, x_0: Tensor, t: Tensor, eps: Tensor | None = None) -> Tensor:
        """x_t for images x_0 (B, C, H, W) at times t, (B,) or (), with the noise eps of x_0's shape (None: without)."""
        raise NotImplementedError

    def prior(self, like: Tensor, noise: Draw = torch.randn_like) -> Tensor:
        """A draw of x_1, of the shape of `like`, without any x_0."""
        raise NotImplementedError

    def fit(self, x_0: Tensor, progress: Callable = iter) -> None:
        """Learn what `prior` needs from training images (N, C, H, W); most processes need nothing."""

    def draw_time(self, noise: Noise) -> Tensor:
        """Training times (B,), float32: t = 1 as often as any other since sampling starts there, never 0."""
        return self.ceil(noise.uniform())

    def ceil(self, t: Tensor) -> Tensor:
        """t itself, or the next time of a discrete process."""
        return t if self.timesteps is None else (t * self.timesteps).ceil() / self.timesteps

    def times(self, steps: int, *, start: float = 1.0) -> Tensor:
        """Even times (steps + 1,) float64 from `start` in (0, 1] down to 0; of a discrete process, multiples of 1/T."""
        assert 0 < start <= 1 <= steps, f"from t = {start} (above 0, up to 1) one cannot take {steps} steps"
        T = self.timesteps
        first = max(1, round(start * T)) if T else start
        assert T is None or steps <= first, f"from t = {start:g} it takes 1 to {first} steps, not {steps}"
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64) * first
        return times.round() / T if T else times

    def step(self, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, noise: Draw = torch.randn_like) -> Tensor:
        """From t down to s < t, given an estimate of x_0. Bansal et al. (2022), Algorithm 2."""
        return x_t - self.degrade(x_0, t) + self.degrade(x_0, s)


class Gaussian(Process):
    """x_t = alpha x_0 + sigma eps. `eta` 0 is DDIM, 1 is DDPM's ancestral step with the `variance` it adds.

    It may be a function of t, as `straight_eta`: whatever eta is, x_t has the same distribution at every t. With an
    infinite one all noise is drawn afresh at each step: Song et al. (2023), Algorithm 1.
    """

    def __init__(self, schedule: Schedule, eta: Eta = 1.0, variance: str = "posterior", logit_normal: bool = False):
        super().__init__()
        self.schedule, self.eta, self.variance, self.logit_normal = schedule, eta, variance, logit_normal
        self.timesteps = schedule.timesteps

    def draw_time(self, noise: Noise) -> Tensor:
        """Uniform, or `logit_normal` (Esser et al., 2024): more from the middle, where most is learnt.

        One in ten stays uniform, as a logit-normal hardly ever comes near t = 1, where sampling starts.
        """
        t = super().draw_time(noise)
        if not self.logit_normal:
            return t
        middle = self.ceil(noise(t[:, None])[:, 0].sigmoid())
        return torch.where(noise.uniform() < 0.1, t, middle)

    def times(self, steps: int, grid: str = "uniform", *, start: float = 1.0) -> Tensor:
        """Even times, or for "karras" times even in (sigma / alpha)^(1/7), Karras et al. (2022), equation 5.

        Those take small steps where little noise is left. They begin with the noise KARRAS[1], or less if the schedule
        has less.
        """
        even = super().times(steps, start=start)
        if grid == "uniform" or steps < 3:
            return even
        high = min(KARRAS[1], (-self.schedule.log_snr(even[0])).exp().item())
        ratio = torch.linspace(high ** (1 / 7), KARRAS[0] ** (1 / 7), steps, dtype=torch.float64) ** 7
        t = torch.cat([even[:1], self.schedule.time_at(-ratio[1:].log()), even[-1:]])
        if not self.timesteps:
            return t
        rank = torch.arange(steps, -1, -1, dtype=torch.float64)  # in a table, each step is at least 1/T
        free = (t * self.timesteps).round() - rank
        free = free.flip(0).cummax(0).values.flip(0).clamp(0, self.timesteps - steps)
        return (free + rank) / self.timesteps

    def degrade(self, x_0: Tensor, t: Tensor, eps: Tensor | None = None) -> Tensor:
        alpha, sigma = (append_dims(each, x_0) for each in self.schedule(t))
        return alpha * x_0 if eps is None else alpha * x_0 + sigma * eps

    def prior(self, like: Tensor, noise: Draw = torch.randn_like) -> Tensor:
        return noise(like)

    def step(self, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, noise: Draw = torch.randn_like) -> Tensor:
        """Song et al. (2021), equation 12; with variance "beta", the fresh noise of Ho et al. (2020), section 3.2."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.schedule(t), self.schedule(s)
        eta = self.eta(t) if callable(self.eta) else self.eta
        beta = (sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2).clamp(min=0)  # variance of x_t given x_s
        # The variance of x_s given x_t and x_0.
        posterior = sigma_s**2 if eta == inf else eta**2 * beta * sigma_s**2 / sigma_t**2
        kept = (sigma_s**2 - posterior).clamp(min=0).sqrt()
        eps = (x_t - alpha_t * x_0) / sigma_t
        x_s = alpha_s * x_0 + kept * eps
        if eta == 0 or s == 0:  # nothing random, or the last step: its noise would only blur the result
            return x_s
        fresh = {"posterior": posterior.sqrt(), "beta": eta * beta.sqrt()}[self.variance]
        return x_s + fresh * noise(x_t)
