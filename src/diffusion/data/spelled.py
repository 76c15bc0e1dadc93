"""Data sets whose captions are words, with MiniLM's pieces of words in their place."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffusion.data import captions
from diffusion.data.batches import Range, Source
from diffusion.data.datasets import Dataset
from diffusion.data.minilm import Pieces


def spelled(source: Source, pieces: Pieces) -> Any:
    """A source of captions with pieces (N, length) for labels instead of words; those that are too long are cut."""
    if not isinstance(source, Dataset):
        return SpelledStream(source, pieces)
    return Spelled(source.name, source.images, _spell(source, pieces), (), source.fingerprint)


def _spell(data: Dataset, pieces: Pieces) -> Tensor:
    return pieces.encode(captions.decode(data.labels, data.classes), cut=True).to(data.labels.device)


@dataclass(frozen=True, eq=False)
class Spelled(Dataset):
    """A data set in memory with pieces for labels; to resume a run, it is the data set that it was made of."""

    origin: str = ""

    @property
    def fingerprint(self) -> str:
        return self.origin


class SpelledStream(Source):
    """A stream whose batches are spelled as they come."""

    def __init__(self, source: Source, pieces: Pieces):
        self.source, self.pieces, self.name, self.classes = source, pieces, source.name, ()
        self.position, self.seek = source.position, source.seek

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def to(self, device: torch.device | str) -> "SpelledStream":
        return SpelledStream(self.source.to(device), self.pieces)

    def batches(self, ranges: Iterable[Range]) -> Iterator[Dataset]:
        return (replace(each, labels=_spell(each, self.pieces), classes=()) for each in self.source.batches(ranges))

    def whole(self, count: int | None = None) -> Dataset:
        return spelled(self.source.whole(count), self.pieces)
