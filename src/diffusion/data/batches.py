"""The order in which training goes through a data set, a function of the seed and the step; and what has an order."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion.errors import UserError


class Range(NamedTuple):
    """`count` places of an order from `first` on: that of an epoch under a seed, or without one that of the files."""

    seed: int | None
    epoch: int
    first: int
    count: int


class Source:
    """Where training takes its batches from: a data set in memory, a stream, a folder of shards.

    By default a range says all about a batch, so that there is no position to keep.
    """

    name: str
    classes: tuple[str, ...]  # what each label means

    @property
    def fingerprint(self) -> str:
        """sha256 of all that is in it: a data set that changed has another."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def to(self, device: torch.device | str) -> "Source":
        """The same, its batches on that device."""
        raise NotImplementedError

    def batches(self, ranges: Iterable[Range]) -> Iterator[Any]:
        """What each range holds, as a `Dataset`."""
        raise NotImplementedError

    def whole(self, count: int | None = None) -> Any:
        """All of it, or the first `count`, in memory, as a `Dataset` in the order of its files."""
        raise NotImplementedError

    def position(self) -> dict[str, Any]:
        """Plain values that, with the step, say how far it was read."""
        return {}

    def seek(self, position: dict[str, Any]) -> None:
        """Go on from there; UserError if that is impossible."""


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """How many whole batches an epoch holds (the rest is dropped); UserError if none."""
    if not 1 <= batch_size <= len(source):
        raise UserError(f"the batch size must be from 1 to {len(source)} (all of {source.name}), not {batch_size}")
    return len(source) // batch_size


@lru_cache(maxsize=4)
def permutation(size: int, seed: int | None, epoch: int) -> Tensor:
    """The order (size,) int64 of an epoch, on the CPU; not to be changed."""
    if seed is None:
        return torch.arange(size, device="cpu")
    # Hashed, as torch drops a seed's upper half, and seed + epoch would repeat the orders of other seeds.
    mixed = int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:4])
    return torch.randperm(size, generator=torch.Generator().manual_seed(mixed), device="cpu")


def ranges(
    size: int, batch_size: int, seed: int, first_step: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Range]:
    """Which places the batches of steps first_step, first_step + 1, … take, without end; of them the part of a rank."""
    per_epoch, share = size // batch_size, batch_size // world
    for step in count(first_step):
        epoch, number = divmod(step, per_epoch)
        yield Range(seed, epoch, number * batch_size + rank * share, share)


def batches(
    source: Source, batch_size: int, seed: int, first_step: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Any]:
    """The batches of steps first_step, first_step + 1, … without end; each epoch is a new permutation.

    A batch depends on (seed, step) only. `batch_size` is that of all processes together; this one (`rank` of `world`)
    gets its contiguous part. UserError if it exceeds the data set or is no multiple of `world`.
    """
    steps_per_epoch(source, batch_size)
    if batch_size % world:
        raise UserError(f"the batch size must be a multiple of the {world} processes that share it, not {batch_size}")
    yield from source.batches(ranges(len(source), batch_size, seed, first_step, rank, world))
