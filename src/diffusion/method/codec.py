"""Codecs: between images in [0, 1] at the border and what a process works on inside. They own the value range."""

import hashlib
import math
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.method.noise import Noise

Shape = tuple[int, int, int]
TOGETHER = 1000  # images that an autoencoder sees at a time


class Codec(nn.Module):
    """The contract: `encode` gives x_0, `decode` takes any x, of the `shape` (C, H, W), in about [low, high]."""

    shape: Shape
    low: float
    high: float

    def encode(self, images: Tensor) -> Tensor:
        """x_0, float32, of images (B, …), uint8 or float in [0, 1]."""
        raise NotImplementedError

    def decode(self, x: Tensor) -> Tensor:
        """Images, float32 in [0, 1], of x (B, *shape)."""
        raise NotImplementedError

    def draw(self, data: Tensor, noise: Noise) -> Tensor:
        """x_0 to train on, of a batch of a data set."""
        return self.encode(data)


class Pixels(Codec):
    """The identity up to range: pixels in [0, 1] outside, in [low, high] inside."""

    def __init__(self, low: float, high: float, shape: Shape):
        super().__init__()
        self.low, self.high, self.shape = low, high, shape

    def encode(self, images: Tensor) -> Tensor:
        """uint8, or float in [0, 1] -> float32 in [low, high]."""
        scale = 255 if not images.is_floating_point() else 1
        return images.float() * ((self.high - self.low) / scale) + self.low

    def decode(self, x: Tensor) -> Tensor:
        """Float in about [low, high] -> float32 in [0, 1], clipped."""
        return ((x.float() - self.low) / (self.high - self.low)).clamp(0, 1)


class Latents(Codec):
    """The latents of a trained autoencoder (Rombach et al., 2022), each standardised over the training set.

    The autoencoder encodes images into mean and log-variance of q(z | image), each of the `shape`, and decodes z.
    `settings` are what it was built from: a file of a model of its latents holds them, too.
    """

    low, high = -math.inf, math.inf  # clipping to it does nothing

    def __init__(self, autoencoder: Any, shape: Shape, contrast: float = 1.0, settings: dict[str, Any] | None = None):
        super().__init__()
        self.autoencoder, self.shape, self.contrast, self.settings = autoencoder, shape, contrast, settings or {}
        self.mean, self.std = nn.Buffer(torch.zeros(shape[0], 1, 1)), nn.Buffer(torch.ones(shape[0], 1, 1))

    @torch.no_grad()
    def posterior(self, images: Tensor) -> Tensor:
        """Mean and log-variance of q(z | images), together (B, 2 C, H, W), as they are stored: not standardised."""
        pixels = lambda part: part.float() / (1 if part.is_floating_point() else 255)
        parts = [torch.cat(self.autoencoder.encode(pixels(part)), dim=1) for part in images.split(TOGETHER)]
        return torch.cat(parts).float()

    def encode(self, images: Tensor) -> Tensor:
        """The standardised mean of q(z | images)."""
        return (self.posterior(images).chunk(2, dim=1)[0] - self.mean) / self.std

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Pictures of standardised latents, with the contrast."""
        parts = (x.float() * self.std + self.mean).split(TOGETHER)
        return torch.cat([self.autoencoder.decode(part, self.contrast).float() for part in parts])

    def draw(self, data: Tensor, noise: Noise) -> Tensor:
        """A fresh z ~ q(z | image), standardised, of uint8 images or of what `posterior` gave for them."""
        mean, log_var = (data if data.is_floating_point() else self.posterior(data)).chunk(2, dim=1)
        return (mean + (log_var / 2).exp() * noise(mean) - self.mean) / self.std

    def fit(self, posterior: Tensor) -> None:
        """Standardise so that draws of the training set (N, 2 C, H, W) have mean 0 and deviation 1 in each channel."""
        mean, log_var = posterior.double().chunk(2, dim=1)
        total = mean.var((0, 2, 3), correction=0) + log_var.exp().mean((0, 2, 3))  # the law of total variance
        self.mean.copy_(mean.mean((0, 2, 3))[:, None, None])
        self.std.copy_(total.sqrt().clamp(min=1e-6)[:, None, None])

    @property
    def digest(self) -> str:
        """Of the autoencoder."""
        return digest_of(self.autoencoder)


def digest_of(module: nn.Module) -> str:
    """Of its weights' names, shapes and values in half precision: the same for a file that holds those."""
    hashed = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        hashed.update(f"{name} {tuple(value.shape)} ".encode())
        hashed.update(value.detach().half().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:16]
