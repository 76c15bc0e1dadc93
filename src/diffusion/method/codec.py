"""Codecs: between images in [0, 1] at the border and what a process works on inside. They own the value range."""

from torch import Tensor, nn


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
