"""A small U-Net: (x, t, label) -> tensor of x's shape."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UNet(nn.Module):
    """A U-Net on the image folded 2×2 into channels: residual blocks at two resolutions, attention at the lower one.

    Folding halves the resolution at which most of the work is done; it learns faster and runs twice as fast. With
    `classes` it is class-conditional: labels are 0 … classes - 1, and `classes` is the null label, for "unconditional".
    """

    layout = torch.channels_last  # of the weights, where they sample in bfloat16 on a CPU

    def __init__(self, shape: tuple[int, int, int], widths: Sequence[int] = (48, 96), classes: int = 0):
        super().__init__()
        channels, (high, low) = 4 * shape[0], widths
        embedding, self.classes = 4 * high, classes
        if classes:
            self.label_embed = nn.Embedding(classes + 1, embedding)
        self.time_embed = nn.Sequential(nn.Linear(high, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.frequencies = nn.Buffer(2 * math.pi * torch.logspace(0, 1.5, high // 2) / 4)  # rad per unit of t
        self.enter = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(channels, high, 3, padding=1))
        self.down = nn.ModuleList([Residual(high, high, embedding), Residual(high, high, embedding)])
        self.shrink = nn.Conv2d(high, low, 3, stride=2, padding=1)
        self.middle = nn.ModuleList([Residual(low, low, embedding), Attention(low), Residual(low, low, embedding)])
        self.grow = nn.Conv2d(low, high, 3, padding=1)
        self.up = nn.ModuleList([Residual(2 * high, high, embedding), Residual(2 * high, high, embedding)])
        self.leave = nn.Sequential(*convolution(high, channels), nn.PixelShuffle(2))
        nn.init.zeros_(self.leave[2].weight)  # the first output is 0: no noise of an untrained network to unlearn

    def null(self, cond: Tensor) -> Tensor:
        """The null label, in the shape of `cond`."""
        return torch.full_like(cond, self.classes)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        time = self.embed(t)
        if self.classes:
            time = time + self.label_embed(self.null(t.long()) if cond is None else cond)
        return self.body(x, time)

    def embed(self, t: Tensor) -> Tensor:
        """Times (B,) as (B, embedding)."""
        angle = t.float()[:, None] * self.frequencies
        return self.time_embed(torch.cat([angle.sin(), angle.cos()], dim=1))

    def body(self, x: Tensor, time: Tensor, *context: Tensor) -> Tensor:
        """From images to images, given the embedded time (B, embedding); `context` goes to the blocks in the middle."""
        x = self.enter(x)  # (B, high, H/2, W/2)
        if x.device.type == "cpu" and x.dtype == torch.float32 or samples_in_bf16(x):  # a fifth faster
            x = x.contiguous(memory_format=torch.channels_last)
        skips = [x := block(x, time) for block in self.down]
        x = self.shrink(x)  # (B, low, H/4, W/4)
        for block in self.middle:
            x = block(x, time, *context)
        x = self.grow(F.interpolate(x, size=skips[-1].shape[-2:]))
        for block in self.up:
            x = block(torch.cat([x, skips.pop()], dim=1), time)
        return self.leave(x)


def convolution(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(GroupNorm(8, inside), SiLU(), nn.Conv2d(inside, outside, 3, padding=1))


class SiLU(nn.Module):
    """x sigmoid(x), written over x where nobody wants gradients."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=not torch.is_grad_enabled())


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu & He, 2018), scaled by 1 + scale and shifted once more, by numbers (B, C) of each sample.

    In bfloat16 and channels last, torch's own takes a CPU longer than the convolution after it. To sample there, all
    of it is one a x + b, in float32, in which the activation is faster, too; the convolution casts it.
    """

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        if not samples_in_bf16(x):
            y = super().forward(x)
            return y if scale is None or shift is None else y * (1 + spread(scale)) + spread(shift)
        x, groups = x.float(), lambda each: each.unflatten(1, (self.num_groups, -1))  # (…, C) -> (…, G, C/G)
        mean, square = (groups(each.mean((2, 3))).mean(2, keepdim=True) for each in (x, x.square()))
        a = groups(self.weight[None]) * ((square - mean**2).clamp(min=0) + self.eps).rsqrt()
        b = groups(self.bias[None]) - a * mean
        a, b = a.flatten(1), b.flatten(1)  # (B, C)
        if scale is not None and shift is not None:
            a, b = a * (1 + scale.float()), b * (1 + scale.float()) + shift
        return torch.addcmul(spread(b), x, spread(a))


def samples_in_bf16(x: Tensor) -> bool:
    """Whether nobody wants gradients of an x in bfloat16 on a CPU: it goes through the network channels last."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.is_grad_enabled()


def spread(each: Tensor) -> Tensor:
    """Numbers (B, C), to meet every place of (B, C, H, W)."""
    return each[:, :, None, None]


class Residual(nn.Module):
    """Two normalised convolutions beside a shortcut; the time scales and shifts between them."""

    def __init__(self, inside: int, outside: int, embedding: int):
        super().__init__()
        self.first = convolution(inside, outside)
        self.time = nn.Linear(embedding, 2 * outside)
        self.norm = GroupNorm(8, outside)
        self.second = nn.Sequential(SiLU(), nn.Conv2d(outside, outside, 3, padding=1))
        self.shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()
        nn.init.zeros_(self.second[1].weight)

    def forward(self, x: Tensor, time: Tensor, *context: Tensor) -> Tensor:
        scale, shift = self.time(F.silu(time)).chunk(2, dim=1)
        return self.shortcut(x) + self.second(self.norm(self.first(x), scale, shift))


class Attention(nn.Module):
    """Self-attention over all positions; `ask` gives queries, keys and values, `answer` is the output projection."""

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        self.heads, self.norm = heads, GroupNorm(8, channels)
        self.ask, self.answer = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.answer.weight)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        b, c, h, w = x.shape
        parts = (
            self.ask(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).mT
        )  # (B, 3, heads, HW, C/heads)
        mixed = F.scaled_dot_product_attention(*parts.unbind(1))
        return x + self.answer(mixed.mT.reshape(b, c, h, w))
