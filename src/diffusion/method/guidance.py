"""Classifier-free guidance (Ho & Salimans, 2022): a denoiser made of a denoiser."""

import math

import torch
from torch import Tensor, nn

from diffusion.method.denoiser import Cond, Denoiser
from diffusion.method.process import append_dims


class Guided(nn.Module):
    """The unconditional estimate of x_0, moved by `scale` towards the conditional one (1: to it, 2: as far beyond).

    A scale of 0 or 1 costs one network call, any other one call of a doubled batch. Outside the `interval` of times
    the scale is 1: guidance does harm at high noise, and nothing once the image is decided (Kynkäänniemi et al., 2024).
    With a `negative` condition, one for all samples, the estimate moves away from that one instead.
    """

    def __init__(
        self, denoiser: Denoiser, scale: float, interval: tuple[float, float] = (0.0, 1.0), negative: Cond = None
    ):
        super().__init__()
        assert math.isfinite(scale), f"a guidance scale is a finite number, not {scale}"
        assert 0 <= interval[0] < interval[1] <= 1, f"a guidance interval is two rising times in [0, 1], not {interval}"
        self.denoiser, self.scale, self.interval, self.negative = denoiser, scale, interval, negative

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        """The estimate of x_0 (B, C, H, W); t is (B,) or ()."""
        (low, high), always = self.interval, self.interval == (0, 1)  # always: a GPU is not asked, and not waited for
        inside = (low <= t) & (t <= high)
        if cond is None or self.scale == 1 or not (always or inside.any()):
            return self.denoiser(x_t, t, cond)
        null = self.denoiser.null(cond) if self.negative is None else self.negative.expand_as(cond)
        if self.scale == 0 and (always or inside.all()):
            return self.denoiser(x_t, t, null)
        twice = t.repeat(2) if t.dim() else t
        without, with_cond = self.denoiser(torch.cat([x_t, x_t]), twice, torch.cat([null, cond])).chunk(2)
        scale = torch.where(inside, self.scale, 1.0).to(x_t.device)
        return without.lerp(with_cond, append_dims(scale, x_t))
