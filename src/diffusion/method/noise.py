"""Random numbers that are a function of (seed, sample, draw): the same on every device, in every batch, on resume.

A counter-based generator (Salmon et al., 2011) on the SplitMix64 finalizer (Steele et al., 2014): no state to save,
no loop over samples, and sample 17 gets the same noise whoever its batch mates are.
"""

import math

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15


def signed(value: int) -> int:
    """A 64-bit pattern as the int64 that torch stores."""
    return (value + 2**63) % 2**64 - 2**63


def shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift: int64's own would drag the sign bit along."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mix(z: Tensor) -> Tensor:
    """SplitMix64's finalizer: each of the 64 bits out depends on each of the 64 bits in."""
    z = (z ^ shift(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shift(z, 27)) * signed(0x94D049BB133111EB)
    return z ^ shift(z, 31)


def fold_in(seed: int) -> int:
    """Another seed, to edit images that may have been sampled from this one: the same noise would only redraw them."""
    return int(mix(torch.tensor(signed((seed + 1) * 0xD1342543DE82EF95))).item()) % 2**63


class Noise:
    """A stream of draws for the samples `index` (B,) under `seed`, or under a seed each (B,); each call is the next."""

    def __init__(self, seed: int | Tensor, index: Tensor):
        if isinstance(seed, Tensor):
            start = mix(seed * signed(GOLDEN))
        else:
            start = mix(torch.full((), signed(seed * GOLDEN), device=index.device))
        self.key = mix(start + index.long() * signed(GOLDEN))  # (B,)
        self.draws = 0

    def bits(self, count: int) -> Tensor:
        """The next (B, count) words of 64 random bits."""
        self.draws += 1
        key = mix(self.key + signed(self.draws * GOLDEN))
        return mix(key[:, None] + torch.arange(1, count + 1, device=key.device) * signed(GOLDEN))

    def uniform(self) -> Tensor:
        """(B,) float32 numbers in (0, 1]: 1 is drawn, 0 is not."""
        return unit(self.bits(1)[:, 0], 40)

    def __call__(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape and dtype of `like` (B, ...), by Box and Muller's formula."""
        count = like.shape[1:].numel()
        bits = self.bits((count + 1) // 2)  # 24 bits for the radius, 24 for the angle: |z| < 5.8
        radius = (-2 * unit(bits, 40).log()).sqrt()
        angle = (2 * math.pi) * unit(bits & 0xFFFFFFFF, 8)
        z = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]
        return z.reshape(like.shape).to(like.dtype)


def unit(bits: Tensor, drop: int) -> Tensor:
    """The 24 bits above the lowest `drop` as a float32 in (0, 1]."""
    return (shift(bits, drop) + 1).float() * 2.0**-24
