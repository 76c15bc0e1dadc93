"""Pictures of one's own with captions, and WikiArt: read whole, cut to squares, and scaled.

A folder is one of Hugging Face's ImageFolder kind: pictures, and metadata.jsonl or metadata.csv with `file_name` and
`text` of each.
"""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from operator import length_hint
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from diffusion.data import captions
from diffusion.data.datasets import Dataset
from diffusion.errors import UserError

SIDE = 32  # pixels
MOST_WORDS, LENGTH = 8000, 24  # of a vocabulary, the most frequent ones, and of a caption; what is beyond is left out
LISTS = ("metadata.jsonl", "metadata.csv")
WIKIART = "Artificio/WikiArt"  # columns image, and description: "artist / title / style / genre / date"
Pair = tuple[str, Image.Image, str]  # a name that the split is drawn from, the picture, its caption


def load_folder(split: str, root: Path, samples: int | None = None) -> Dataset:
    """The pictures below root that metadata.jsonl or metadata.csv lists; one in ten, by its name, is of the test split.

    UserError for a list that is missing, a line that cannot be read, and a picture that is missing, none or too large.
    """
    return _dataset("folder", _pairs(root, _listed(root)), split, samples)


def load_wikiart(split: str, root: Path, samples: int | None = None) -> Dataset:
    """Paintings and their descriptions: from root/wikiart, as `datasets` saves it, or from the internet."""
    import datasets  # seconds to import

    where = root / "wikiart"
    try:
        rows = datasets.load_from_disk(str(where)) if where.exists() else datasets.load_dataset(WIKIART, split="train")
        pairs = ((str(i), row["image"], row["description"]) for i, row in enumerate(rows))
        return _dataset("wikiart", pairs, split, samples)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        by_hand = f"save it with `datasets` as {str(where)!r}, with the columns image and description"
        raise UserError(f"WikiArt cannot be had: {by_hand} ({reason})") from None


def _listed(root: Path) -> list[tuple[str, str]]:
    """File names and captions of the list."""
    path = next((root / name for name in LISTS if (root / name).is_file()), None)
    if path is None:
        raise UserError(f"no captions in {str(root)!r}: it needs {' or '.join(LISTS)} with file_name and text of each")
    lines = path.read_bytes().splitlines(keepends=True)
    left = iter(lines)
    said = (line.decode("utf-8-sig") for line in left)  # Excel's files begin with a mark of their encoding
    try:
        rows = csv.DictReader(said) if path.suffix == ".csv" else map(json.loads, filter(str.strip, said))
        return [(_said(row, "file_name"), _said(row, "text")) for row in rows]
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        line = len(lines) - length_hint(left)
        raise UserError(f"{str(path)!r}, line {line}: each line has a file_name and a text ({reason})") from None


def _said(row: dict, what: str) -> str:
    """KeyError for null, and for a row that ends before; csv.Error for one that goes on."""
    if None in row:
        raise csv.Error("a text with a comma stands in quotes")
    if row[what] is None:
        raise KeyError(what)
    return str(row[what])


def _pairs(root: Path, listed: Iterable[tuple[str, str]]) -> Iterator[Pair]:
    for name, text in listed:
        path = root / name
        try:
            if not path.resolve().is_relative_to(root.resolve()):
                raise ValueError(f"it is outside of {str(root)!r}")
            with Image.open(path) as picture:
                yield name, picture.convert("RGB"), text
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{str(path)!r} is no picture that can be read: {error}") from None


def _dataset(name: str, pairs: Iterable[Pair], split: str, samples: int | None) -> Dataset:
    """The split, its words those of both splits."""
    said, images = [], []
    for key, picture, text in pairs:
        mine = (hashlib.sha256(key.encode()).digest()[0] < 26) is (split == "test")
        said.append(text)
        if mine and (samples is None or len(images) < samples):
            square = ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
            images.append((np.array(square).transpose(2, 0, 1), text))
    if not images:
        raise UserError(f"there are no pictures of {name} in the {split} split: one in ten is for testing, by its name")
    words = vocabulary(said)
    rows = captions.encode([_known(text, words) for _, text in images], words, LENGTH)
    return Dataset(name, torch.from_numpy(np.stack([image for image, _ in images])), rows, words)


def vocabulary(said: Iterable[str]) -> tuple[str, ...]:
    """The most frequent words of captions, the padding first."""
    counts = Counter(word for text in said for word in captions.split(text))
    return ("", *sorted(word for word, _ in counts.most_common(MOST_WORDS)))


def _known(text: str, words: Sequence[str]) -> str:
    """The first words of a caption that are in the vocabulary."""
    known = set(words)
    return " ".join([word for word in captions.split(text) if word in known][:LENGTH])
