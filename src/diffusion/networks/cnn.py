"""The coursework's network: full-resolution convolutions."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        (y,) = ctx.saved_tensors  # the derivative is scale above 0 and scale alpha exp(x) = y + scale alpha below
        return torch.ops.aten.elu_backward(gradient, FastSELU.alpha, FastSELU.scale, 1, True, y)


class SELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return FastSELU.apply(x)


ACTIVATIONS = {"gelu": nn.GELU, "selu": SELU, "silu": nn.SiLU, "relu": nn.ReLU}


class LayerNorm(nn.LayerNorm):
    """torch's, over all of an image (C, H, W), in whichever order its numbers lie: torch's own would reorder them."""

    def forward(self, x: Tensor) -> Tensor:
        if x.is_contiguous():
            return super().forward(x)
        last = lambda each: each.movedim(-3, -1)  # (…, C, H, W) -> (…, H, W, C)
        weight, bias = last(self.weight), last(self.bias)
        return F.layer_norm(last(x), weight.shape, weight, bias, self.eps).movedim(-1, -3)


def block(inside: int, outside: int, size: Sequence[int], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """A 7×7 convolution, layer norm over the whole image, activation."""
    layers = nn.Conv2d(inside, outside, 7, padding=3), LayerNorm((outside, *size)), activation()
    return nn.Sequential(OrderedDict(net=nn.Sequential(*layers)))


class CNN(nn.Module):
    """Full-resolution 7×7 blocks for images of a `shape` (C, H, W), the time added once, after the first.

    Its module names are those of the coursework's weight files, so that those load as they are.
    """

    def __init__(self, shape: tuple[int, int, int], hidden: Sequence[int] = (16, 32, 32, 16), activation: str = "gelu"):
        super().__init__()
        channels, *size = shape
        act, features, width = ACTIVATIONS[activation], 16, 128
        self.blocks = nn.ModuleList(block(i, o, size, act) for i, o in pairwise((channels, *hidden)))
        self.blocks.append(nn.Conv2d(hidden[-1], channels, 3, padding=1))
        pairs = ((nn.Linear(i, o), act()) for i, o in pairwise((2 * features, width, width, width)))
        self.time_embed = nn.Sequential(*(layer for pair in pairs for layer in pair), nn.Linear(width, hidden[0]))
        # float64 powers: the highest frequency is 1837 rad per unit of t, where float32 products would show
        self.frequencies = nn.Buffer(torch.tensor([0.0] + [2 * math.pi * 1.5**i for i in range(features - 1)]))

    def forward(self, x: Tensor, t: Tensor, cond: None = None) -> Tensor:
        angle = t.float()[:, None] * self.frequencies  # (B, F)
        time = self.time_embed(torch.cat([angle.sin(), angle.cos() - 1], dim=1))  # (B, hidden[0])
        x = self.blocks[0](x) + time[:, :, None, None]
        if x.device.type == "cpu" and (x.dtype == torch.float32 or torch.is_grad_enabled()):
            x = x.contiguous(memory_format=torch.channels_last)  # a fifth faster; to sample in bfloat16 gains nothing
        for layer in self.blocks[1:]:
            x = layer(x)
        return x
