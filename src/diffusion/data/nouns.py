"""Nouns: figures of 32 × 32 pixels put together from named parts (CC0), so that captions are exact.

Each picture is a function of (seed, index): two grounds, 31 bodies, 145 accessories, 258 heads and 24 glasses make 56
million figures.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch

from diffusion.data import captions, fetch
from diffusion.data.datasets import Dataset
from diffusion.data.fetch import About
from diffusion.data.scenes import Split

SIDE = 32
LAYERS = ("ground", "body", "accessory", "head", "glasses")  # from the back to the front
SPOKEN = ("head", "glasses", "accessory", "body", "ground")  # as a caption says them
UNSAID = {"accessory": 0.2, "body": 0.2, "ground": 0.5}  # how often a caption leaves it out
SAMPLES = {"train": 60_000, "test": 10_000}
FOLDERS = {"body": "bodies", "accessory": "accessories", "head": "heads", "glasses": "glasses"}
FILE = "image-data.json"
ABOUT = About(
    (3, SIDE, SIDE),
    (),
    "nouns",
    dict.fromkeys(SAMPLES, (FILE,)),
    {FILE: "beae1d83fec54131ab1eed8b49dc025c719b803309a9252f8d10158b015cd0ef"},
    "json",
    (fetch.npm("@noundry/nouns-assets@1.17.2"),),
    "dist/{files} of that package into {folder}",
)


@dataclass(frozen=True)
class Noun:
    """The number of each layer's part, what the caption says, and which layers it leaves out."""

    parts: dict[str, int]
    caption: str
    unsaid: frozenset[str]
    kind = "noun"

    @property
    def split(self) -> Split:
        """Training never shows one pair of head and glasses in ten."""
        return "unseen" if (self.parts["head"] + self.parts["glasses"]) % 10 == 3 else "seen"


class Picture(NamedTuple):
    image: np.ndarray  # (3, 32, 32) uint8
    caption: str
    noun: Noun


@dataclass(frozen=True)
class Nouns:
    """An endless data set: picture `index` under a seed."""

    names: dict[str, list[str]]  # layer -> the words for each of its parts
    pixels: dict[str, np.ndarray]  # layer -> (parts, 4, 32, 32) uint8, red, green, blue and opacity
    seed: int = 0
    split: Split | None = None  # only nouns of this; None: of both

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary of all captions; the first is the padding."""
        said = {word for names in self.names.values() for name in names for word in captions.split(name)}
        return ("", *sorted(said | set(LAYERS)))

    @property
    def length(self) -> int:
        """Words of the longest caption."""
        return sum(max(len(captions.split(name)) for name in names) + 1 for names in self.names.values())

    def __getitem__(self, index: int) -> Picture:
        random = Random(f"{self.seed} {index}")
        while True:
            parts = {layer: random.randrange(len(self.names[layer])) for layer in LAYERS}
            unsaid = frozenset(what for what, chance in UNSAID.items() if random.random() < chance)
            said = [f"{self.names[what][parts[what]]} {what}" for what in SPOKEN if what not in unsaid]
            noun = Noun(parts, ", ".join(said), unsaid)
            if self.split in (None, noun.split):
                return Picture(self.render(noun), noun.caption, noun)

    def render(self, noun: Noun) -> np.ndarray:
        """The picture (3, 32, 32) uint8."""
        image = np.zeros((3, SIDE, SIDE), dtype=np.uint8)
        for layer in LAYERS:
            part = self.pixels[layer][noun.parts[layer]]
            image = np.where(part[3] > 0, part[:3], image)
        return image


def open_nouns(root: Path, seed: int = 0, split: Split | None = None) -> Nouns:
    """The nouns of the file below root, fetched if it is not there."""
    content = json.loads(fetch.obtain("nouns", ABOUT, "train", root)[0].read_bytes())
    palette = np.array([(0, 0, 0, 0), *((*bytes.fromhex(colour), 255) for colour in content["palette"][1:])])
    names, pixels = {"ground": ["cool", "warm"]}, {}
    grounds = [(*bytes.fromhex(colour), 255) for colour in content["bgcolors"]]
    pixels["ground"] = np.tile(np.array(grounds, dtype=np.uint8)[:, :, None, None], (1, 1, SIDE, SIDE))
    for layer, folder in FOLDERS.items():
        parts = content["images"][folder]
        names[layer] = [" ".join(each["filename"].lower().split("-")[1:]) for each in parts]
        drawn = [palette[_unpack(each["data"])] for each in parts]  # (H, W, 4) each
        pixels[layer] = np.stack(drawn).transpose(0, 3, 1, 2).astype(np.uint8)
    return Nouns(names, pixels, seed, split)


def _unpack(data: str) -> np.ndarray:
    """A part (32, 32) of numbers of colours, 0 for none, from its run-length code: palette, box, then (length, colour)
    along the rows of the box.
    """
    _, top, right, bottom, left, *runs = bytes.fromhex(data.removeprefix("0x"))
    picture, line = np.zeros((SIDE, SIDE), dtype=np.int64), np.repeat(runs[1::2], runs[::2])
    if right > left:  # else it is the part called "none"
        box = np.zeros((bottom - top + 1, right - left), dtype=np.int64)
        box.flat[: len(line)] = line
        picture[top : bottom + 1, left:right] = box[: SIDE - top]
    return picture


def load(split: str, root: Path, samples: int | None = None) -> Dataset:
    """`samples` nouns of a split with their captions; those to train on show no pair that is held out."""
    nouns = open_nouns(root, seed=0 if split == "train" else 1, split="seen" if split == "train" else None)
    pictures = [nouns[index] for index in range(SAMPLES[split] if samples is None else samples)]
    rows = captions.encode([each.caption for each in pictures], nouns.words, nouns.length)
    return Dataset("nouns", torch.from_numpy(np.stack([each.image for each in pictures])), rows, nouns.words)
