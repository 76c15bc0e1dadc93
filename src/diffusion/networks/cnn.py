"""The coursework's network: full-resolution convolutions."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class FastSELU(torch.autograd.Function):
    """scale (max(x, 0) + alpha (exp(min(x, 0)) - 1)), Klambauer et al. (2017).

    torch's own calls expm1, which no CPU vectorises: it took a third of a training step. In float32, exp minus 1 is
    within 1e-7 of it.
    """

    alpha, scale = 1.6732632423543772, 1.0507009873554805

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        wide, alpha, scale = x.float(), FastSELU.alpha, FastSELU.scale
        y = wide.clamp(max=0).exp_().mul_(alpha).add_(wide.clamp(min=0)).sub_(alpha).mul_(scale).to(x.dtype)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors  # scale above 0; below, the derivative scale alpha exp(x) is y + scale alpha
        return torch.ops.aten.elu_backward(gradient, FastSELU.alpha, FastSELU.scale, 1, True, y)


class SELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return FastSELU.apply(x)


ACTIVATIONS = {"gelu": nn.GELU, "selu": SELU, "silu": nn.SiLU, "relu": nn.ReLU}


class Block(nn.Module):
    """Convolution, layer norm over the whole image, activation."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, size: tuple[int, int], activation: type[nn.Module]
    ):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2),
            nn.LayerNorm((out_channels, *size)),
            activation(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class CNN(nn.Module):
    """The coursework's network: full-resolution 7×7 blocks, the time added once, after the first.

    Its module names are those of the coursework's weight files, so that those load as they are.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],  # (C, H, W) of an image
        hidden: Sequence[int] = (16, 32, 32, 16),
        activation: str = "gelu",
        kernel: int = 7,
        time_features: int = 16,
        time_hidden: int = 128,
    ):
        super().__init__()
        channels, *size = shape
        act = ACTIVATIONS[activation]
        widths = (channels, *hidden)
        self.blocks = nn.ModuleList(Block(i, o, kernel, tuple(size), act) for i, o in zip(widths, widths[1:]))
        self.blocks.append(nn.Conv2d(hidden[-1], channels, 3, padding=1))
        self.time_embed = nn.Sequential(
            nn.Linear(2 * time_features, time_hidden), act(),
            nn.Linear(time_hidden, time_hidden), act(),
            nn.Linear(time_hidden, time_hidden), act(),
            nn.Linear(time_hidden, hidden[0]),
        )  # fmt: skip
        # float64 powers: the highest frequency is 1837 rad per unit of t, where float32 products would show
        frequencies = [0.0] + [2 * math.pi * 1.5**i for i in range(time_features - 1)]
        self.register_buffer("frequencies", torch.tensor(frequencies))

    def forward(self, x: Tensor, t: Tensor, cond: None = None) -> Tensor:
        angle = t.float()[:, None] * self.frequencies  # (B, F)
        time = self.time_embed(torch.cat([angle.sin(), angle.cos() - 1], dim=1))  # (B, hidden[0])
        x = self.blocks[0](x) + time[:, :, None, None]
        for block in self.blocks[1:]:
            x = block(x)
        return x
