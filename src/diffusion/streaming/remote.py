"""A data set on a server, as the source of a training's batches."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from diffusion.data.batches import Range, Source
from diffusion.data.datasets import Dataset
from diffusion.errors import UserError, unknown
from diffusion.streaming.client import Client
from diffusion.streaming.protocol import About, Get

MOST_BYTES = 4 * 2**30  # of samples that are held in memory at once, to score against


@dataclass(frozen=True, eq=False)
class RemoteDataset(Source):
    """A split that a server has; its batches are those of the same data set in memory, to the bit."""

    client: Client
    name: str
    split: str
    about: About
    classes: tuple[str, ...]
    device: torch.device

    @property
    def fingerprint(self) -> str:
        return self.about.fingerprint

    def __len__(self) -> int:
        return self.about.size

    def to(self, device: torch.device | str) -> "RemoteDataset":
        return replace(self, device=torch.device(device))

    def batches(self, ranges: Iterable[Range]) -> Iterator[Dataset]:
        for images, labels in self.client.ask(map(self._get, ranges, itertools.count()), self.about):
            yield Dataset(self.name, images, labels, self.classes).to(self.device)

    def whole(self, count: int | None = None) -> Dataset:
        """UserError if it is more than fits into the memory of an ordinary machine."""
        count = len(self) if count is None else min(count, len(self))
        check_size(self.name, count, self.about)
        step = min(self.about.most, 4096)
        parts = [*self.batches(Range(None, 0, at, min(step, count - at)) for at in range(0, count, step))]
        images, labels = (torch.cat([getattr(part, what) for part in parts]) for what in ("images", "labels"))
        return replace(parts[0], images=images, labels=labels)

    def _get(self, part: Range, number: int) -> Get:
        if part.count > self.about.most:
            raise UserError(f"the server sends at most {self.about.most} samples at once: a smaller batch size, please")
        return Get(number % 2**32, self.name, self.split, self.about.fingerprint, *part)


def check_size(name: str, count: int, about: About) -> None:
    """UserError if so many samples do not fit into the memory of an ordinary machine."""
    if (size := count * about.sample_bytes) > MOST_BYTES:
        limit = f"no more than {MOST_BYTES / 2**30:.0f} GiB are held at once, to score against"
        raise UserError(f"{count:,} samples of {name} are {size / 2**30:.0f} GiB; {limit}")


def load(
    client: Client,
    name: str,
    split: str = "train",
    root: str | Path = "",
    device: torch.device | str = "cpu",
    samples: int | None = None,
) -> RemoteDataset:
    """A split that the server has, as data.sources.load; UserError if it has not, or not so many `samples`."""
    if name not in client.offer:
        raise unknown("dataset", name, client.offer)
    if split not in client.offer[name]:
        raise unknown("split", split, client.offer[name])
    about = client.offer[name][split]
    if samples and samples != about.size:
        what = f"{about.size:,} samples of {name} {split} are served, not {samples:,}"
        raise UserError(f"{what}: set data.samples here or --samples of the server")
    return RemoteDataset(client, name, split, about, tuple(about.classes), torch.device(device))
