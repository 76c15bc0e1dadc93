"""A U-Net that is told in words what to draw: (x, t, caption) -> tensor of x's shape."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.networks.minilm import FrozenEncoder, MiniLM
from diffusion.networks.unet import Attention, GroupNorm, Residual, UNet


class TextUNet(UNet):
    """A U-Net whose middle reads a caption by cross-attention, knowing where in the image it is.

    A caption is (B, length) int64 numbers of words, padded with 0; only padding is the null caption. Only the middle
    reads it, word by word. If it is `pooled`, the mean of its words is added to the time, too: the outer blocks then
    know what is drawn, but as a bag of words. With `minilm` a caption is numbers of pieces of words, which that reads.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        widths: Sequence[int],
        words: int,
        length: int,
        depth: int = 2,
        width: int = 128,
        minilm: MiniLM | None = None,
        pooled: bool = True,
    ):
        super().__init__(shape, widths)
        high, low = widths
        self.length, self.pooled = length, pooled
        self.encoder = FrozenEncoder(minilm, length, width) if minilm else CaptionEncoder(words, length, width)
        if pooled:
            self.summary = nn.Linear(width, 4 * high)
        parts: list[nn.Module] = [Positions(low, *((side // 2 + 1) // 2 for side in shape[1:]))]
        for _ in range(depth):
            parts += [Residual(low, low, 4 * high), Attention(low), CrossAttention(low, width)]
        self.middle = nn.ModuleList([*parts, Residual(low, low, 4 * high)])

    def null(self, cond: Tensor) -> Tensor:
        """The null caption, in the shape of `cond`."""
        return torch.zeros_like(cond)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        cond = torch.zeros(len(x), self.length, dtype=torch.int64, device=x.device) if cond is None else cond
        tokens, time = self.encoder(cond), self.embed(t)  # (B, length, width), (B, embedding)
        if self.pooled:
            said = (cond != 0).to(tokens.dtype)[..., None]  # with padding, a short caption's mean would be mostly that
            time = time + self.summary((tokens * said).sum(1) / said.sum(1).clamp(min=1))
        return self.body(x, time, tokens)


class CaptionEncoder(nn.Module):
    """Words (B, length) to tokens (B, length, width) that know their neighbours: a transformer of two layers.

    Padding is a word like any other: it tells where the caption ends.
    """

    def __init__(self, words: int, length: int, width: int):
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Parameter(waves(length, width))  # as large as the words: else order is learnt last
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, caption: Tensor) -> Tensor:
        return self.layers(self.words(caption) + self.positions)


def waves(places: int, width: int) -> Tensor:
    """Places in a row as sines and cosines (places, width) of mean square 1, from a wave of twice their number to one
    of four (Vaswani et al., 2017): neighbours begin alike.
    """
    rad = torch.logspace(math.log10(math.pi / places), math.log10(math.pi / 2), width // 2)
    angle = torch.arange(places)[:, None] * rad
    return math.sqrt(2) * torch.cat([angle.sin(), angle.cos()], dim=1)


class Positions(nn.Module):
    """A learnt vector for each place of the image, added to it: attention itself knows no places."""

    def __init__(self, channels: int, height: int, width: int):
        super().__init__()
        rows, columns = (waves(places, channels // 2).T for places in (height, width))
        down, right = rows[:, :, None].expand(-1, -1, width), columns[:, None].expand(-1, height, -1)
        self.vectors = nn.Parameter(torch.cat([down, right]))

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        return x + self.vectors


class CrossAttention(nn.Module):
    """Every place of the image asks every token."""

    def __init__(self, channels: int, width: int, heads: int = 4):
        super().__init__()
        self.heads, self.norm = heads, GroupNorm(8, channels)
        self.ask, self.offer = nn.Conv2d(channels, channels, 1), nn.Linear(width, 2 * channels)
        self.answer = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.answer.weight)

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q = self.ask(self.norm(x)).reshape(b, self.heads, c // self.heads, h * w).mT  # (B, heads, HW, C/heads)
        k, v = self.offer(tokens).reshape(b, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.answer(mixed.mT.reshape(b, c, h, w))
