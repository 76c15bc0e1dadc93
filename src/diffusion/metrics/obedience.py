"""Whether pictures show what their captions say, after GenEval (Ghosh et al., 2023): each object is found and judged.

What a picture must show is asked of its scene, never read from the caption. What the caption leaves open is not judged.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.data.glyphs import boxes, components, crops
from diffusion.data.scenes import COLOURS, GROUNDS, PLACES, SIDE, SIZES, Scene, relation
from diffusion.metrics.features import Extractor
from diffusion.precision import torch_defaults

INK = 0.4  # share of a colour from which a pixel belongs to a digit
SPECK = 4  # pixels; smaller components are nothing
ATTRIBUTES = ("count", "digit", "colour", "size", "place", "relation", "ground")


class Seen(NamedTuple):
    """One digit found in a picture."""

    digit: int
    colour: str
    size: str
    centre: tuple[float, float]  # (y, x) in pixels, of its box


@dataclass(frozen=True)
class View:
    """What was found in a picture."""

    ground: str
    digits: list[Seen]


@torch_defaults()
@torch.no_grad()
def look(images: Tensor, reader: Extractor) -> list[View]:
    """What is seen in pictures (N, 3, 32, 32), float in [0, 1]; `reader` tells the digits of crops."""
    pixels = images.float().cpu() * 255  # much that follows is small and one after the other
    middle = pixels.flatten(2).median(dim=2).values  # (N, 3): most of a picture is ground
    names, grounds = [*GROUNDS], torch.tensor([*GROUNDS.values()]).float()
    nearest = torch.cdist(middle, grounds).argmin(1)
    ink, colour = unmix(pixels, grounds[nearest])
    parts = [*_parts(ink)]
    views = [View(names[i], []) for i in nearest.tolist()]
    if not parts:
        return views
    index, masks = torch.tensor([i for i, _ in parts]), torch.stack([mask for _, mask in parts])
    surroundings = F.max_pool2d(masks[:, None].float(), 3, stride=1, padding=1)[:, 0]  # with the paler rim
    cut = crops((ink[index] * surroundings * 255).round().byte()[:, None])
    digits = reader(cut)[1].argmax(1).tolist()
    votes = F.one_hot(colour[index], len(COLOURS)) * (ink[index] * masks)[..., None]  # (parts, H, W, colours)
    colours = votes.sum((1, 2)).argmax(1).tolist()
    for i, digit, shade, (top, left, bottom, right) in zip(index.tolist(), digits, colours, boxes(masks).tolist()):
        size = "large" if max(bottom - top, right - left) > sum(SIZES.values()) / 2 else "small"
        views[i].digits.append(Seen(digit, [*COLOURS][shade], size, ((top + bottom) / 2, (left + right) / 2)))
    return views


def unmix(pixels: Tensor, grounds: Tensor) -> tuple[Tensor, Tensor]:
    """The share of ink (N, H, W) in pixels (N, 3, H, W) before grounds (N, 3), and the number of its colour (N, H, W).

    A pixel is taken for the mixture of its ground with one colour that comes nearest to it.
    """
    palette = torch.tensor([*COLOURS.values()]).float()
    way = palette - grounds[:, None]  # (N, colours, 3)
    off = (pixels - grounds[:, :, None, None]).flatten(2)  # (N, 3, HW)
    share = (way @ off / way.square().sum(2, keepdim=True)).clamp(0, 1)  # (N, colours, HW)
    rest = (off[:, None] - way[..., None] * share[:, :, None]).square().sum(2)
    colour = rest.argmin(1, keepdim=True)
    shape = pixels.shape[0], *pixels.shape[2:]
    return share.gather(1, colour).reshape(shape), colour.reshape(shape)


def _parts(ink: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each component that is more than a speck: the number of its picture and its mask (H, W)."""
    labels = components(ink > INK)
    for i, picture in enumerate(labels):
        numbers, sizes = picture[picture > 0].unique(return_counts=True)
        yield from ((i, picture == number) for number in numbers[sizes >= SPECK])


def check(view: View, scene: Scene) -> dict[str, bool]:
    """Which attributes that the caption of a scene speaks of are right in a picture.

    The digits found are matched with those said as well as can be; with a wrong count nothing said of them is right.
    """
    said = {"count", "digit"} | ({"colour", "size"} - scene.unsaid)
    said |= {"relation"} if scene.relations else set()
    said |= {"place"} if scene.place and "place" not in scene.unsaid else set()
    right = {what: False for what in ATTRIBUTES if what in said}
    right["count"] = len(view.digits) == len(scene.digits)
    if right["count"]:
        matches = [_compare(order, scene) for order in permutations(view.digits)]
        right |= max(
            ({what: match[what] for what in said - {"count"}} for match in matches), key=lambda r: sum(r.values())
        )
    return right | ({} if "ground" in scene.unsaid else {"ground": view.ground == scene.ground})


def _compare(order: Sequence[Seen], scene: Scene) -> dict[str, bool]:
    """Each attribute of digits in this order against those of a scene."""
    pairs = [*zip(order, scene.digits)]
    right = {what: all(getattr(a, what) == getattr(b, what) for a, b in pairs) for what in ("digit", "colour", "size")}
    found = [relation(a.centre, b.centre, clear=1) for a, b in zip(order, order[1:])]
    y, x = order[0].centre
    place = PLACES[3 * min(int(3 * y / SIDE), 2) + min(int(3 * x / SIDE), 2)]
    return right | {"relation": found == [*scene.relations], "place": place == scene.place}


class Share(NamedTuple):
    """How many of how many."""

    right: int
    of: int

    @property
    def value(self) -> float:
        return self.right / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of Wilson (1927)."""
        z, n, p = 1.96, max(self.of, 1), self.right / max(self.of, 1)
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))


def shares(verdicts: Sequence[dict[str, bool]]) -> dict[str, Share]:
    """Of pictures that were checked: how many have all right, and each attribute where it was said."""
    found = {"all right": Share(sum(all(verdict.values()) for verdict in verdicts), len(verdicts))}
    for what in dict.fromkeys(each for verdict in verdicts for each in verdict):
        spoken = [verdict[what] for verdict in verdicts if what in verdict]
        found[what] = Share(sum(spoken), len(spoken))
    return found


def twins(verdicts: Sequence[dict[str, bool]], swapped: Sequence[dict[str, bool]]) -> Share:
    """Pairs of prompts that differ only in who is where: how many have both right. A bag of words gets half at best."""
    both = [all(a.values()) and all(b.values()) for a, b in zip(verdicts, swapped, strict=True)]
    return Share(sum(both), len(both))


def diversity(images: Tensor) -> float:
    """How different pictures of the same prompt are: the RMSE of two of them, (prompts, each, C, H, W), on average."""
    _, each = images.shape[:2]
    flat = images.flatten(2).float()
    distances = torch.cdist(flat, flat) / flat.shape[2] ** 0.5  # (prompts, each, each)
    return distances.sum((1, 2)).div(each * (each - 1)).mean().item()
