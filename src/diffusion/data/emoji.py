"""Emoji in two free styles, Noto (Apache 2.0) and Twemoji (CC BY 4.0), with their English names and tags (MIT).

Skin tones are folded into the plain emoji, and flags left out. A caption is a style, a name and some tags.
"""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion import files
from diffusion.data import captions, fetch
from diffusion.data.datasets import Dataset
from diffusion.data.fetch import About
from diffusion.data.scenes import Split
from diffusion.errors import UserError

SIDE, LENGTH, TAGS = 32, 20, 3  # pixels, words of a caption, and tags in it at most
SAMPLES = {"train": 50_000, "test": 5_000}
STYLES = {"noto": "google", "twemoji": "twitter"}  # and their folder in the package
PACKAGES = {
    "emoji-datasource-google-16.0.0": "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "emoji-datasource-twitter-16.0.0": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    "emojibase-data-17.0.0": "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
}
DIGESTS = {f"{package}.tgz": digest for package, digest in PACKAGES.items()}
ABOUT = About(
    (3, SIDE, SIDE),
    (),
    "emoji",
    dict.fromkeys(SAMPLES, tuple(DIGESTS)),
    DIGESTS,
    "npm packages",
    tuple(fetch.npm("@".join(package.rsplit("-", 1)), unpack=False) for package in PACKAGES),
    "the packages {files} of the npm registry into {folder}",
)


class Picture(NamedTuple):
    image: np.ndarray  # (3, 32, 32) uint8
    caption: str
    emoji: str  # its code point


@dataclass(frozen=True)
class Emoji:
    """An endless data set: picture `index` under a seed."""

    images: Tensor  # (emoji, styles, 3, 32, 32) uint8
    codes: list[str]
    names: list[str]
    tags: list[list[str]]
    seed: int = 0
    split: Split | None = None  # of emoji: one in ten is unseen, in either style

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary of all captions; the first is the padding."""
        said = {word for text in (*self.names, *sum(self.tags, [])) for word in captions.split(text)}
        return ("", *sorted(said | set(STYLES)))

    def __getitem__(self, index: int) -> Picture:
        random = Random(f"{self.seed} {index}")
        while True:
            number = random.randrange(len(self.codes))
            if self.split in (None, "unseen" if int(self.codes[number].split("-")[0], 16) % 10 == 7 else "seen"):
                break
        style = random.randrange(len(STYLES))
        some = random.sample(self.tags[number], min(random.randint(0, TAGS), len(self.tags[number])))
        said = [f"{[*STYLES][style]} {self.names[number]}", *some]
        while len(captions.split(" ".join(said))) > LENGTH:
            said.pop()
        return Picture(self.images[number, style].numpy(), ", ".join(said), self.codes[number])


def open_emoji(root: Path, seed: int = 0, split: Split | None = None) -> Emoji:
    """The emoji of a file below root, which is made of the packages, fetched if they are not there."""
    path = root / "emoji" / "emoji.pt"
    content = files.load(path) if path.is_file() else {}
    if not isinstance(content, dict) or content.get("digests") != DIGESTS:
        content = _unpack(*fetch.obtain("emoji", ABOUT, "train", root))
        files.save(path, content)
    return Emoji(content["images"], content["codes"], content["names"], content["tags"], seed, split)


def _unpack(google: Path, twitter: Path, data: Path) -> dict:
    """Pictures, code points, names and tags of all emoji that are in both styles."""
    with tarfile.open(data) as archive:
        listed = json.load(archive.extractfile("package/en/data.json"))
    listed = [each for each in listed if each.get("group") not in (None, 2, 9)]  # letters, skin tones, flags
    styles = [_pictures(path, folder) for path, folder in zip((google, twitter), STYLES.values())]
    plain = lambda code: code.lower().replace("-fe0f", "")
    listed = [each for each in listed if all(plain(each["hexcode"]) in style for style in styles)]
    if not listed:
        raise UserError("the packages of emoji hold none that is in both styles")
    images = torch.stack([torch.stack([style[plain(each["hexcode"])] for style in styles]) for each in listed])
    content = {"digests": DIGESTS, "images": images, "codes": [each["hexcode"] for each in listed]}
    return content | {"names": [each["label"] for each in listed], "tags": [each.get("tags", []) for each in listed]}


def _pictures(path: Path, folder: str) -> dict[str, Tensor]:
    """Each picture (3, 32, 32) uint8 on white, by its code point."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.startswith(f"package/img/{folder}/64/"):
                picture = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                small = Image.alpha_composite(white, picture).convert("RGB").resize((SIDE, SIDE), Image.LANCZOS)
                code = Path(member.name).stem.replace("-fe0f", "")
                found[code] = torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()
    return found


def load(split: str, root: Path, samples: int | None = None) -> Dataset:
    """`samples` pictures of a split with their captions; training never shows the emoji that are held out."""
    source = open_emoji(root, seed=0 if split == "train" else 1, split="seen" if split == "train" else "unseen")
    pictures = [source[index] for index in range(SAMPLES[split] if samples is None else samples)]
    rows = captions.encode([each.caption for each in pictures], source.words, LENGTH)
    return Dataset("emoji", torch.from_numpy(np.stack([each.image for each in pictures])), rows, source.words)
