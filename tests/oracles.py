"""Data of which everything is known in closed form, and what it takes to know a sampler just as well."""

import torch
from torch import Tensor

from diffusion.method.noise import Noise

M, S = 0.4, 0.3  # mean and deviation of the Gaussian data


class Counting:
    """A denoiser that remembers what it was called with."""

    def __init__(self, denoiser):
        self.denoiser, self.calls = denoiser, []

    def __call__(self, x_t, t, cond=None):
        self.calls.append((x_t, t, cond))
        return self.denoiser(x_t, t, cond)

    def null(self, cond):
        return self.denoiser.null(cond)

    @property
    def sizes(self):
        return [len(x_t) for x_t, _, _ in self.calls]


class Impulses:
    """Noise that is 1 for sample k + 1 at draw k and 0 elsewhere: what a linear sampler makes of each draw.

    Sample 0 gets none at all, so it is the mean of what the sampler draws; the variance is the sum of the squares by
    which the others differ from it. So the law of a sampler on Gaussian data is known without drawing anything.
    """

    def __init__(self):
        self.draws = 0

    def __call__(self, like: Tensor) -> Tensor:
        self.draws += 1
        z = torch.zeros_like(like)
        z[self.draws] = 1
        return z


def law(x: Tensor) -> tuple[float, float]:
    """Mean and deviation of what a sampler draws, from what it made of Impulses (B, 1, 1, 1)."""
    x = x.flatten()
    return x[0].item(), (x[1:] - x[0]).square().sum().sqrt().item()


def gaussian(schedule, m=M, s=S):
    """The exact denoiser of data N(m, s^2): the mean of x_0 given x_t, in the dtype of x_t."""

    def denoiser(x_t, t, cond=None):
        alpha, sigma = (each.reshape(-1, *[1] * (x_t.dim() - 1)).to(x_t) for each in schedule(t))
        return m + alpha * s**2 * (x_t - alpha * m) / (alpha**2 * s**2 + sigma**2)

    return denoiser


def flow(schedule, z: Tensor, t) -> Tensor:
    """Where the probability flow of data N(M, S^2) is at time t on its way through the deviate z."""
    alpha, sigma = schedule(torch.as_tensor(t, dtype=torch.float64))
    return alpha * M + (alpha**2 * S**2 + sigma**2).sqrt() * z


def log_snr_times(process, first: float, last: float, steps: int) -> Tensor:
    """The (steps + 1,) times between two times at equal distances of log(alpha / sigma)."""
    fine = torch.linspace(last, first, 400_001, dtype=torch.float64)
    rises = process.schedule.log_snr(fine).flip(0)  # ascending
    wanted = torch.linspace(rises[0], rises[-1], steps + 1, dtype=torch.float64)
    return fine.flip(0)[torch.searchsorted(rises, wanted).clamp(max=len(fine) - 1)]


def noise(seed: int, count: int) -> Noise:
    return Noise(seed, torch.arange(count))
