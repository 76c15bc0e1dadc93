"""A residual network for latents without a picture's order: (x, t, label) -> tensor of x's shape."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

FREQUENCIES = 8


class MLP(nn.Module):
    """Residual blocks on a trunk of hidden[0] channels, as wide inside as hidden[1:] say.

    Time and label scale and shift the normalised trunk before each block (Peebles & Xie, 2023), each with a table of
    its own: two small ones cost less than one for every pair.
    """

    def __init__(self, shape: tuple[int, int, int], hidden: Sequence[int] = (128, 160, 160), classes: int = 0):
        super().__init__()
        self.shape, self.classes, size, width = shape, classes, math.prod(shape), hidden[0]
        self.frequencies = nn.Buffer(math.pi * torch.arange(1, FREQUENCIES + 1) / 2)  # rad per unit of t
        self.enter, self.leave = nn.Linear(size, width), nn.Linear(width, size)
        self.blocks = nn.ModuleList(Block(width, inside, classes) for inside in hidden[1:])
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.leave.weight)  # the first output is 0: no noise of an untrained network to unlearn

    def null(self, cond: Tensor) -> Tensor:
        """The null label, in the shape of `cond`."""
        return torch.full_like(cond, self.classes)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        angle = t.float()[:, None] * self.frequencies
        time = torch.cat([angle.sin(), angle.cos()], dim=1)  # (B, 2 FREQUENCIES)
        cond = self.null(t.long()) if cond is None else cond
        h = self.enter(x.flatten(1))  # (B, width)
        for block in self.blocks:
            h = block(h, time, cond)
        return self.leave(self.norm(h)).unflatten(1, self.shape)


class Block(nn.Module):
    def __init__(self, width: int, inside: int, classes: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.time = nn.Linear(2 * FREQUENCIES, 2 * width)
        self.label = nn.Embedding(classes + 1, 2 * width)
        self.branch = nn.Sequential(nn.Linear(width, inside), nn.SiLU(), nn.Linear(inside, width))
        nn.init.zeros_(self.label.weight)

    def forward(self, h: Tensor, time: Tensor, cond: Tensor) -> Tensor:
        scale, shift = (self.time(time) + self.label(cond)).chunk(2, dim=1)
        return h + self.branch(self.norm(h) * (1 + scale) + shift)
