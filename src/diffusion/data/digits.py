"""Captioned digits: pictures of scenes, drawn from handwritten digits; each a function of (seed, index)."""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from diffusion.data import captions, datasets
from diffusion.data.datasets import Dataset
from diffusion.data.glyphs import INK, count_components, scaled
from diffusion.data.scenes import COLOURS, GROUNDS, LENGTH, RULES, SIDE, SIZES, WORDS, Rules, Scene, Split, draw

HANDWRITTEN = 20_000  # digits of a split of MNIST that scenes are made of
SAMPLES = {"train": 60_000, "test": 10_000}  # pictures of a split, if nobody says how many
PART = 2000  # pictures that a worker draws at a time
FEW = 100_000  # are drawn by this process alone: workers take some seconds to start


class Picture(NamedTuple):
    """A picture, its caption, and what the caption means."""

    image: np.ndarray  # (3, 32, 32) uint8
    caption: str
    scene: Scene


@dataclass(frozen=True)
class Digits:
    """An endless data set: picture `index` under a seed."""

    glyphs: dict[str, list[np.ndarray]]  # size -> of each digit (n, side, side) uint8, the share of ink
    seed: int = 0
    split: Split | None = None  # only scenes of this; None: of both
    rules: Rules = RULES["digits"]

    def __getitem__(self, index: int) -> Picture:
        scene = draw(self.seed, index, self.split, rules=self.rules)
        return Picture(self.render(scene), scene.caption, scene)

    def render(self, scene: Scene) -> np.ndarray:
        """The picture (3, 32, 32) uint8 of a scene."""
        ground = np.array(GROUNDS[scene.ground], dtype=np.float32)
        image = np.tile(ground, (SIDE, SIDE, 1))  # (H, W, 3)
        for each in scene.digits:
            known = self.glyphs[each.size][each.digit]
            ink = known[int(each.style * len(known))][:, :, None] / np.float32(255)
            part = image[each.top : each.top + each.side, each.left : each.left + each.side]
            part += ink * (np.array(COLOURS[each.colour], dtype=np.float32) - ground)
        return image.round().astype(np.uint8).transpose(2, 0, 1)

    def part(self, first: int, count: int) -> tuple[np.ndarray, list[str]]:
        """Pictures (count, 3, 32, 32) from index `first` on, and their captions."""
        pictures = [self[index] for index in range(first, first + count)]
        return np.stack([each.image for each in pictures]), [each.caption for each in pictures]


def handwritten(split: str, root: Path) -> dict[str, list[np.ndarray]]:
    """The digits that `Digits` draws with, of a split of MNIST: those that are in one piece at every size."""
    data = datasets.load("MNIST", split, root)
    images, labels = data.images[:HANDWRITTEN], data.labels[:HANDWRITTEN]
    inks = {size: scaled(images, side) for size, side in SIZES.items()}
    whole = torch.stack([count_components(ink > INK) == 1 for ink in inks.values()]).all(0)
    packed = {size: (ink * 255).round().byte().numpy() for size, ink in inks.items()}
    return {size: [ink[whole & (labels == digit)] for digit in range(10)] for size, ink in packed.items()}


def load(split: str, root: Path, samples: int | None = None, name: str = "digits") -> Dataset:
    """`samples` pictures of a split, by the rules of this name, with their captions as words. Those to train on show no
    combination that is held out, those to test with show all; they are drawn from other handwritten digits.

    Both splits have seed 0: at least seven in ten scenes to test with are those to train on, index for index, in other
    handwriting. Recorded numbers depend on that. For other scenes, take another seed of `Digits`.
    """
    source = Digits(handwritten(split, root), 0, "seen" if split == "train" else None, RULES[name])
    parts = _parts(source, SAMPLES[split] if samples is None else samples)
    images = torch.from_numpy(np.concatenate([images for images, _ in parts]))
    rows = captions.encode([caption for _, said in parts for caption in said], WORDS, LENGTH)
    return Dataset(name, images, rows, WORDS)


def _parts(source: Digits, samples: int) -> Sequence[tuple[np.ndarray, list[str]]]:
    """All pictures in parts, in their order, drawn by as many processes as there are cores where that is worth it."""
    first = range(0, samples, PART)
    counts = [min(PART, samples - each) for each in first]
    cores = os.cpu_count() or 1
    if samples <= FEW or cores < 4:
        return [*map(source.part, first, counts)]
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _adopt, (source,)) as workers:
        return [*workers.map(_part, first, counts)]


def _adopt(source: Digits) -> None:
    global _source
    _source = source


def _part(first: int, count: int) -> tuple[np.ndarray, list[str]]:
    return _source.part(first, count)
