"""The networks: (x, t) -> tensor of x's shape. They know nothing of diffusion."""

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


class UNet(nn.Module):
    """A U-Net on the image folded 2×2 into channels: residual blocks at two resolutions, attention at the lower one.

    Folding halves the resolution at which most of the work is done; it learns faster and runs twice as fast. It can be
    told the labels below `classes`, and `classes` itself, the null label, which says nothing.
    """

    def __init__(self, shape: tuple[int, int, int], widths: Sequence[int] = (48, 96), classes: int = 0):
        super().__init__()
        channels, (high, low) = 4 * shape[0], widths
        embedding = 4 * high
        self.classes = classes
        if classes:
            self.label_embed = nn.Embedding(classes + 1, embedding)
        self.time_embed = nn.Sequential(nn.Linear(high, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.register_buffer("frequencies", 2 * math.pi * torch.logspace(0, 1.5, high // 2) / 4)  # rad per unit of t
        self.enter = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(channels, high, 3, padding=1))
        self.down = nn.ModuleList([Residual(high, high, embedding), Residual(high, high, embedding)])
        self.shrink = nn.Conv2d(high, low, 3, stride=2, padding=1)
        self.middle = nn.ModuleList([Residual(low, low, embedding), Attention(low), Residual(low, low, embedding)])
        self.grow = nn.Conv2d(low, high, 3, padding=1)
        self.up = nn.ModuleList([Residual(2 * high, high, embedding), Residual(2 * high, high, embedding)])
        self.leave = nn.Sequential(
            nn.GroupNorm(8, high), nn.SiLU(), nn.Conv2d(high, channels, 3, padding=1), nn.PixelShuffle(2)
        )
        nn.init.zeros_(self.leave[2].weight)  # the first answer is 0: no noise of an untrained network to unlearn

    def null(self, cond: Tensor) -> Tensor:
        """The condition that says nothing, of the shape of `cond`."""
        return torch.full_like(cond, self.classes)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        angle = t.float()[:, None] * self.frequencies
        time = self.time_embed(torch.cat([angle.sin(), angle.cos()], dim=1))  # (B, embedding)
        if self.classes:
            label = self.null(t.long()) if cond is None else cond  # (B,)
            time = time + self.label_embed(label)
        x = self.enter(x)  # (B, high, H/2, W/2)
        if x.dtype == torch.float32 and x.device.type == "cpu":  # a fifth faster; bfloat16 has layouts of its own
            x = x.contiguous(memory_format=torch.channels_last)
        kept = []
        for block in self.down:
            x = block(x, time)
            kept.append(x)
        size = x.shape[-2:]
        x = self.shrink(x)  # (B, low, H/4, W/4)
        for block in self.middle:
            x = block(x, time)
        x = self.grow(nn.functional.interpolate(x, size=size))
        for block in self.up:
            x = block(torch.cat([x, kept.pop()], dim=1), time)
        return self.leave(x)


class Residual(nn.Module):
    """Two normalised convolutions beside a shortcut; the time scales and shifts between them."""

    def __init__(self, inside: int, outside: int, embedding: int):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, inside), nn.SiLU(), nn.Conv2d(inside, outside, 3, padding=1))
        self.time = nn.Linear(embedding, 2 * outside)
        self.norm = nn.GroupNorm(8, outside)
        self.second = nn.Sequential(nn.SiLU(), nn.Conv2d(outside, outside, 3, padding=1))
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()
        nn.init.zeros_(self.second[1].weight)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.time(nn.functional.silu(time))[:, :, None, None].chunk(2, dim=1)
        return self.shortcut(x) + self.second(self.norm(self.first(x)) * (1 + scale) + shift)


class Attention(nn.Module):
    """Every place looks at every other, in four heads."""

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(8, channels)
        self.ask, self.answer = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.answer.weight)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        b, c, h, w = x.shape
        parts = (
            self.ask(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).mT
        )  # (B, 3, heads, HW, C/heads)
        seen = nn.functional.scaled_dot_product_attention(*parts.unbind(1))
        return x + self.answer(seen.mT.reshape(b, c, h, w))
