"""Schedules: t in [0, 1] -> (alpha, sigma), how much signal and how much noise are left. All in float64."""

import math

import torch
from torch import Tensor, nn


class Schedule(nn.Module):
    """x_t = alpha x_0 + sigma eps; called with times of any shape, it gives alpha and sigma of that shape."""

    timesteps: int | None = None  # T of a table, None for continuous time

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha / sigma): from -inf where nothing of x_0 is left to inf where there is no noise."""
        alpha, sigma = self(t)
        return alpha.log() - sigma.log()

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The inverse of log_snr: the times (N,) float64 of values (N,)."""
        raise NotImplementedError


class LinearBeta(Schedule):
    """The coursework's table: beta_i = beta_min + (beta_max - beta_min) i / T for i = 0 … T, alpha_bar their product.

    Time is discrete: t is looked up at i = round(t T). alpha_bar_0 = 1 - beta_min, a hair below 1, as in the original.
    """

    timesteps: int

    def __init__(self, timesteps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02):
        super().__init__()
        self.timesteps = timesteps
        beta = torch.linspace(beta_min, beta_max, timesteps + 1, dtype=torch.float64)
        self.alpha_bar = nn.Buffer((1 - beta).cumprod(0), persistent=False)  # (T + 1,)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alpha_bar[(t * self.timesteps).round().long()]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def time_at(self, log_snr: Tensor) -> Tensor:
        """The nearest time of the table after 0, which is never trained."""
        table = torch.arange(1, self.timesteps + 1, dtype=torch.float64, device=log_snr.device) / self.timesteps
        known = self.log_snr(table).to(log_snr.device)  # the schedule may be on another device
        return table[(known - log_snr[:, None]).abs().argmin(1)]


class Cosine(Schedule):
    """Nichol & Dhariwal (2021), equation 17, in continuous time; alpha is 0 at t = 1."""

    offset = 0.008
    start = math.cos(offset / (1 + offset) * math.pi / 2)  # alpha is 1 at t = 0

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = torch.cos((t.double() + self.offset) / (1 + self.offset) * math.pi / 2) / self.start
        alpha = torch.where(alpha < 1e-12, 0.0, alpha).clamp(max=1)  # cos(pi / 2) is 6e-17 in floating point
        return alpha, (1 - alpha**2).sqrt()

    def time_at(self, log_snr: Tensor) -> Tensor:
        alpha = (2 * log_snr.double()).sigmoid().sqrt()  # as alpha^2 + sigma^2 = 1
        return ((alpha * self.start).acos() * 2 / math.pi * (1 + self.offset) - self.offset).clamp(min=0)


class Rectified(Schedule):
    """Straight lines from data to noise (Liu et al., 2023): alpha = 1 - t, sigma = t."""

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.double()
        return 1 - t, t

    def time_at(self, log_snr: Tensor) -> Tensor:
        return (-log_snr.double()).sigmoid()
