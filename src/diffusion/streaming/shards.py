"""Shards: a data set as WebDataset tar files in a random order, written here, read through Hugging Face's `datasets`.

For more data than one server's network carries: each process reads its own shards, from a disk that all of them see.
"""

import glob
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import datasets
import numpy as np
import torch
from datasets.distributed import split_dataset_by_node
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, distributed
from webdataset import TarWriter

from diffusion import files
from diffusion.data.batches import Range, Source, permutation
from diffusion.data.datasets import Dataset
from diffusion.errors import UserError, unknown
from diffusion.streaming.eir import caption, png
from diffusion.streaming.protocol import CONFIG, About, describe
from diffusion.streaming.remote import check_size

INDEX = "shards.json"  # what a folder holds; written last


@dataclass(frozen=True)
class Shard:
    """A tar file of a split."""

    __pydantic_config__ = CONFIG

    file: Annotated[str, Field(pattern=r"^[\w-]+\.tar$")]
    samples: Annotated[int, Field(strict=True, ge=1)]
    bytes: Annotated[int, Field(strict=True, ge=1)]


@dataclass(frozen=True)
class Split:
    """What the index says of a split."""

    __pydantic_config__ = CONFIG

    about: About
    shards: Annotated[list[Shard], Field(min_length=1)]


INDEX_TYPE = TypeAdapter(dict[str, Split])

# --- Writing ---


def write(splits: dict[str, Dataset], folder: Path, count: int, seed: int = 0) -> Iterator[int]:
    """Write each split of a data set as `count` shards into a new folder, yielding how many samples each shard took.

    It is there when it is whole, or not at all. UserError if it is there already, for more shards than samples, and for
    data that could not be read again.
    """
    folder = files.expand(folder)
    if folder.exists():
        raise UserError(f"{str(folder)!r} is there already: choose another folder, or remove it")
    for split, data in splits.items():
        if count > len(data):
            raise UserError(f"{data.name} {split} has {len(data)} samples: that many shards at most, not {count}")
    about = {split: describe(data) for split, data in splits.items()}
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        index: dict[str, Split] = {}
        for split, data in splits.items():
            shards = []
            for number, part in enumerate(permutation(len(data), seed, 0).tensor_split(count)):
                shards.append(_write_shard(unfinished / f"{split}-{number:05d}.tar", data, part))
                yield len(part)
            index[split] = Split(about[split], shards)
        text = json.dumps({split: asdict(each) for split, each in index.items()})
        files.write_atomically(unfinished / INDEX, lambda file: file.write(text.encode()))
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_shard(path: Path, data: Dataset, index: Tensor) -> Shard:
    with TarWriter(str(path), mtime=0) as tar:
        for number in index.tolist():
            about = {"index": number, "label": data.labels[number].tolist()}
            text = caption(data.labels[number], data.classes)
            tar.write({"__key__": f"{number:09d}", "png": png(data.images[number]), "json": about, "txt": text})
    return Shard(path.name, len(index), path.stat().st_size)


# --- Reading ---


@dataclass(eq=False)
class ShardedDataset(Source):
    """A split in shards. Each epoch goes through them in another order, and within each as they were written.

    Where it was read up to is in `position`, so that a resumed training need not read what it has seen.
    """

    name: str
    folder: Path
    split: Split
    classes: tuple[str, ...]
    device: torch.device
    rank: int = 0
    world: int = 1
    at: tuple[int | None, int, int] | None = None  # seed, epoch, and how many samples of it this process has taken
    saved: dict[str, Any] | None = None  # a position to go on from

    @property
    def fingerprint(self) -> str:
        return self.split.about.fingerprint

    def __len__(self) -> int:
        # An epoch ends where the first process may have no more; shards differ by one sample at most.
        return len(self.split.shards) * min(shard.samples for shard in self.split.shards)

    def to(self, device: torch.device | str) -> "ShardedDataset":
        return replace(self, device=torch.device(device), at=None)

    def batches(self, ranges: Iterable[Range]) -> Iterator[Dataset]:
        for each in ranges:
            taken = each.first // (each.count * self.world) * each.count
            if self.at != (each.seed, each.epoch, taken):
                self._open(each.seed, each.epoch, taken)
            batch = self._dataset(islice(self.rows, each.count))
            self.at = each.seed, each.epoch, taken + each.count
            yield batch.to(self.device)

    def whole(self, count: int | None = None) -> Dataset:
        """All in the order of the files they were made from; or the first `count` of the shards."""
        check_size(self.name, count or self.split.about.size, self.split.about)
        rows = self._stream(self.split.shards)
        if count is not None:
            return self._dataset(islice(rows, count)).to(self.device)
        return self._dataset(sorted(rows, key=lambda row: row["json"]["index"])).to(self.device)

    def position(self) -> dict[str, Any]:
        return {"at": list(self.at), "state": self.reader.state_dict()} if self.at else self.saved or {}

    def seek(self, position: dict[str, Any]) -> None:
        self.saved = position or None

    def _open(self, seed: int | None, epoch: int, taken: int) -> None:
        """Begin to read an epoch, after so many samples that this process has had of it."""
        order = permutation(len(self.split.shards), seed, epoch).tolist()
        self.reader = split_dataset_by_node(self._stream([self.split.shards[i] for i in order]), self.rank, self.world)
        if self.saved and self.saved["at"] == [seed, epoch, taken]:
            self.reader.load_state_dict(self.saved["state"])
            taken = 0
        self.rows = iter(self.reader)
        for _ in islice(self.rows, taken):
            pass

    def _stream(self, shards: Iterable[Shard]) -> datasets.IterableDataset:
        paths = [glob.escape(str(self.folder / shard.file)) for shard in shards]
        return datasets.load_dataset("webdataset", data_files={"train": paths}, split="train", streaming=True)

    def _dataset(self, rows: Iterable[dict[str, Any]]) -> Dataset:
        rows = list(rows)
        images = np.stack([np.asarray(row["png"]).reshape(*row["png"].size[::-1], -1) for row in rows])
        labels = torch.tensor([row["json"]["label"] for row in rows])
        return Dataset(self.name, torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels, self.classes)


def load(
    folder: Path,
    name: str,
    split: str = "train",
    root: str | Path = "",
    device: torch.device | str = "cpu",
    samples: int | None = None,
) -> ShardedDataset:
    """A split of a data set in folder/name, this process's part of it; UserError if it is not there, or not whole."""
    place = folder / name
    if not place.is_dir():
        raise unknown("dataset", name, [each.parent.name for each in folder.glob(f"*/{INDEX}")])
    try:
        splits = INDEX_TYPE.validate_json((place / INDEX).read_bytes())
    except (OSError, ValidationError):
        raise UserError(f"{str(place / INDEX)!r} is missing or damaged: write the shards again") from None
    if split not in splits:
        raise unknown("split", split, splits)
    found = splits[split]
    if samples and samples != found.about.size:
        raise UserError(f"{found.about.size:,} samples of {name} {split} are in {str(place)!r}, not {samples:,}")
    for shard in found.shards:
        if not (path := place / shard.file).is_file() or path.stat().st_size != shard.bytes:
            raise UserError(f"{str(path)!r} is missing or cut short: write the shards again")
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    place, classes, device = place.absolute(), tuple(found.about.classes), torch.device(device)
    return ShardedDataset(name, place, found, classes, device, rank, world)
