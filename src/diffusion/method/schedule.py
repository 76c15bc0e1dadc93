"""Schedules: t in [0, 1] -> (alpha, sigma), how much signal and how much noise are left. All in float64."""

import math

import torch
from torch import Tensor, nn


class LinearBeta(nn.Module):
    """The coursework's table: beta_i = beta_min + (beta_max - beta_min) i / T for i = 0 … T, alpha_bar their product.

    Time is discrete: t is looked up at i = round(t T). alpha_bar_0 = 1 - beta_min, a hair below 1, as in the original.
    """

    def __init__(self, timesteps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02):
        super().__init__()
        self.timesteps = timesteps
        beta = torch.linspace(beta_min, beta_max, timesteps + 1, dtype=torch.float64)
        self.register_buffer("alpha_bar", (1 - beta).cumprod(0), persistent=False)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alpha_bar[(t * self.timesteps).round().long()]
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


class Cosine(nn.Module):
    """Nichol & Dhariwal (2021), equation 17, in continuous time; alpha is 0 at t = 1."""

    timesteps = None
    offset = 0.008

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        angle = lambda t: (t + self.offset) / (1 + self.offset) * math.pi / 2
        alpha = torch.cos(angle(t.double())) / math.cos(angle(0.0))
        alpha = torch.where(alpha < 1e-12, 0.0, alpha).clamp(max=1)  # cos(pi / 2) is 6e-17 in floating point
        return alpha, (1 - alpha**2).sqrt()


class Rectified(nn.Module):
    """Straight lines from data to noise (Liu et al., 2023): alpha = 1 - t, sigma = t."""

    timesteps = None

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.double()
        return 1 - t, t


def build_schedule(name: str, timesteps: int, beta_min: float, beta_max: float) -> nn.Module:
    """The schedule of a config; only `linear` has a number of timesteps and betas."""
    if name == "linear":
        return LinearBeta(timesteps, beta_min, beta_max)
    return {"cosine": Cosine, "rectified": Rectified}[name]()
