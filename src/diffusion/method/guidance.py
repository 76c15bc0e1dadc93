"""Classifier-free guidance (Ho & Salimans, 2022): a denoiser made of a denoiser."""

import math

import torch
from torch import Tensor, nn

from diffusion.errors import UserError
from diffusion.method.denoiser import Denoiser
from diffusion.method.process import append_dims

LARGEST = 1e6  # of scales: beyond, float32 has nothing left to tell


def _number(value: object) -> float:
    """The value as a float, NaN if it is no number."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan


class Guided(nn.Module):
    """x_0 without the condition, moved by `scale` towards (1: to, 2: as far beyond) x_0 with it.

    A scale of 0 or 1 costs one network call, any other one call of a doubled batch. Outside the `interval` of times
    the scale is 1: guidance harms where there is only noise, and where all is decided (Kynkäänniemi et al., 2024).
    """

    def __init__(self, denoiser: Denoiser, scale: float, interval: tuple[float, float] = (0.0, 1.0)):
        super().__init__()
        scale = _number(scale)
        if not abs(scale) < LARGEST:
            raise UserError(f"a guidance scale is a number (0 ignores the label, 1 follows it), not {scale:g}")
        low, high = map(_number, interval if isinstance(interval, tuple | list) and len(interval) == 2 else "??")
        if not 0 <= low < high <= 1:
            raise UserError(f"a guidance interval is two times from 0 to 1, the lower first, not {low:g} and {high:g}")
        self.denoiser, self.scale, self.interval = denoiser, scale, (low, high)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The estimate of x_0 (B, C, H, W); t is (B,) or ()."""
        low, high = self.interval
        inside = (low <= t) & (t <= high)
        if cond is None or self.scale == 1 or not inside.any():
            return self.denoiser(x_t, t, cond)
        null = self.denoiser.null(cond)
        if self.scale == 0 and inside.all():
            return self.denoiser(x_t, t, null)
        twice = t.repeat(2) if t.dim() else t
        free, bound = self.denoiser(torch.cat([x_t, x_t]), twice, torch.cat([null, cond])).chunk(2)
        scale = torch.where(inside, self.scale, 1.0).to(x_t.device)
        return free.lerp(bound, append_dims(scale, bound))
