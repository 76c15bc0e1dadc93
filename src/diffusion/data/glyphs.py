"""Real digits cut out and scaled: what scenes are made of, and what the reader of scenes learns from."""

import torch
from torch import Tensor
from torch.nn import functional as F

CROP = 20  # pixels of the sides of a cut-out digit
INK = 0.3  # from this share of a digit's colour on, a pixel belongs to it


def scaled(images: Tensor, size: int) -> Tensor:
    """Grey digits (N, 1, H, W) uint8, cut to their boxes and scaled so that the longer side is `size`, in the middle of
    size × size pixels: the share of ink of each pixel (N, size, size), float in [0, 1]. Its darkest pixels have all.
    """
    ink, glyphs = images[:, 0].float() / 255, torch.zeros(len(images), size, size)
    top, left, bottom, right = boxes(ink > INK).unbind(1)
    shapes = torch.stack([bottom - top, right - left], dim=1)  # (N, 2)
    for h, w in shapes.unique(dim=0).tolist():  # few different ones: all of a shape are scaled at once
        some = ((shapes == torch.tensor([h, w])).all(1)).nonzero()[:, 0]
        rows, columns = top[some, None] + torch.arange(h), left[some, None] + torch.arange(w)
        cut = ink[some[:, None, None], rows[:, :, None], columns[:, None, :]]  # (n, h, w)
        high, wide = (max(1, round(side * size / max(h, w))) for side in (h, w))
        small = F.interpolate(cut[:, None], (high, wide), mode="bilinear", antialias=True)[:, 0]
        y, x = (size - high) // 2, (size - wide) // 2
        small = 1.5 * small / small.amax((1, 2), keepdim=True).clamp(min=0.1)  # thin strokes would fade
        glyphs[some, y : y + high, x : x + wide] = small.clamp(max=1)
    return glyphs


def crops(ink: Tensor) -> Tensor:
    """Whatever is in each picture (N, 1, H, W) uint8, cut out and made equally large: (N, 1, 20, 20) uint8."""
    cut = torch.cat([scaled(part, CROP - 2) for part in ink.split(10_000)])
    return F.pad((cut * 255).round().byte(), (1, 1, 1, 1))[:, None]


def boxes(mask: Tensor) -> Tensor:
    """(N, 4) int64: top, left, bottom, right of what is true in masks (N, H, W); the ends are one beyond it."""
    sides = []
    for axis in (2, 1):  # rows, then columns, that hold anything
        any_, length = mask.any(axis).int(), mask.shape[3 - axis]
        sides.append((any_.argmax(1), length - any_.flip(1).argmax(1)))
    (top, bottom), (left, right) = sides
    return torch.stack([top, left, bottom, right], dim=1)


def components(mask: Tensor) -> Tensor:
    """(N, H, W) int64: 0 outside the masks (N, H, W), and one number for all pixels that touch, diagonally too.

    A component's number is the highest of its pixels', found by letting it spread until nothing changes.
    """
    n, h, w = mask.shape
    labels = torch.arange(1, h * w + 1, device=mask.device, dtype=torch.float32).view(1, h, w) * mask
    while True:
        spread = F.max_pool2d(labels[:, None], 3, stride=1, padding=1)[:, 0] * mask
        if torch.equal(spread, labels):
            return labels.long()
        labels = spread


def count_components(mask: Tensor) -> Tensor:
    """How many components each mask (N, H, W) has, (N,)."""
    found = components(mask).flatten(1).sort(dim=1).values
    return ((found.diff(dim=1) > 0) & (found[:, 1:] > 0)).sum(1) + (found[:, 0] > 0)
