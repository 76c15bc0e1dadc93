"""Codecs: between images in [0, 1] at the border and what a process works on inside. They own the value range."""

import torch
from torch import Tensor, nn

from diffusion.errors import UserError


def check_pixels(images: Tensor, slack: float = 1e-6) -> None:
    """UserError unless images are (N, C, H, W), uint8 or floats in [0, 1], of which rounding may take `slack`."""
    if images.ndim != 4:
        raise UserError(f"images have the shape (N, C, H, W), not {tuple(images.shape)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UserError(f"images are uint8, or floats from 0 to 1, not {images.dtype}")
    if images.is_floating_point() and not ((images >= -slack) & (images <= 1 + slack)).all():  # NaN is refused, too
        found = f"these go from {images.min():g} to {images.max():g} (states of a process are decoded first)"
        raise UserError(f"images are uint8, or floats from 0 to 1; {found}")


class Pixels(nn.Module):
    """The identity up to range: pixels in [0, 1] outside, in [low, high] inside."""

    def __init__(self, low: float, high: float):
        super().__init__()
        self.low, self.high = low, high

    def encode(self, images: Tensor) -> Tensor:
        """uint8, or float in [0, 1] -> float32 in [low, high]."""
        scale = 255 if not images.is_floating_point() else 1
        return images.float() * ((self.high - self.low) / scale) + self.low

    def decode(self, x: Tensor) -> Tensor:
        """Float in about [low, high] -> float32 in [0, 1], clipped."""
        return ((x.float() - self.low) / (self.high - self.low)).clamp(0, 1)
