"""Data sets as two tensors, fetched from where they can be had, and checked."""

import hashlib
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from diffusion.data import fetch, glyphs
from diffusion.data.batches import Range, Source, permutation
from diffusion.data.registry import DATASETS
from diffusion.data.scenes import SIZES
from diffusion.errors import unknown
from diffusion.files import expand
from diffusion.precision import torch_defaults


@dataclass(frozen=True, eq=False)
class Dataset(Source):
    """One split of a data set, or some of it, on one device."""

    name: str
    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]  # what each label means

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor) -> "Dataset":
        return replace(self, images=self.images[index], labels=self.labels[index])

    def to(self, device: torch.device | str) -> "Dataset":
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.classes, *self.images.shape, *self.labels.shape)).encode())
        for part in (self.images, self.labels):
            digest.update(part.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def batches(self, ranges: Iterable[Range]) -> Iterator["Dataset"]:
        known: tuple[int | None, int] | None = None
        for each in ranges:
            if known != (each.seed, each.epoch):  # an order goes to the device once
                known = each.seed, each.epoch
                order = permutation(len(self), *known).to(self.images.device)
            yield self[order[each.first : each.first + each.count]]

    def whole(self, count: int | None = None) -> "Dataset":
        return self if count is None else replace(self, images=self.images[:count], labels=self.labels[:count])

    @torch_defaults()
    def without(self, count: int) -> tuple["Dataset", "Dataset"]:
        """(the others, `count` held-out ones), always the same: drawn at random, whatever the seed of a training."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0)).to(self.images.device)
        held_out, others = order[:count].sort().values, order[count:].sort().values
        return (self[others], self[held_out]) if count else (self, self[held_out])

    @torch_defaults()
    def shuffled(self, seed: int = 0) -> "Dataset":
        """In a random order: the first images of a file may be unlike the rest, as those of MNIST's test split are."""
        return self[torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).to(self.images.device)]

    @torch_defaults()
    def stratified(self, n: int, seed: int = 0) -> "Dataset":
        """n of its images in a random order, their labels in the proportions of all of them, to within one.

        Labels drawn at random are off by some per mille, which at N = 10,000 is most of the FID of real digits.
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator).to(self.images.device)
        ranked = order[self.labels[order].argsort(stable=True)]  # by label, of each in a random order
        even = ((torch.arange(n) + 0.5) * len(self) / n).long()  # with n above len(self), images repeat
        return self[ranked[even[torch.randperm(n, generator=generator)].to(ranked.device)]]


@torch_defaults()
def load(name: str, split: str = "train", root: str | Path = "data", device: str | torch.device = "cpu") -> Dataset:
    """A split ("train" or "test") of a data set of DATASETS, fetched into `root` first if it is not there.

    UserError for an unknown name or split, and when a file cannot be had: what to put where, and what was tried.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    about = DATASETS[name]
    if split not in about.files:
        raise unknown("split", split, about.files)
    images, labels = READERS[about.format](*fetch.obtain(name, about, split, expand(root)))
    return Dataset(name, images.contiguous(), labels, about.classes).to(device)


def _read_idx(images: Path, labels: Path, transposed: bool = False) -> tuple[Tensor, Tensor]:
    pixels = _idx(images).unsqueeze(1)  # (N, 1, H, W)
    return pixels.mT if transposed else pixels, _idx(labels).long()


def _idx(path: Path) -> Tensor:
    """The bytes of an IDX file: 0, 0, 8, the number of axes, the size of each in four bytes, and the numbers."""
    content = path.read_bytes()
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    start = 4 + 4 * len(shape)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, count=prod(shape), offset=start).view(shape)


def _read_cifar10(*paths: Path) -> tuple[Tensor, Tensor]:
    # Pickles can run code, but these have just been found to be the ones their makers published.
    parts = [pickle.loads(path.read_bytes(), encoding="latin1") for path in paths]
    images = torch.cat([torch.from_numpy(part["data"]) for part in parts])
    return images.view(-1, 3, 32, 32), torch.cat([torch.tensor(part["labels"]) for part in parts])


def _read_crops(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    """MNIST's digits as the checker of scenes sees them: drawn at each size of scenes, and cut out again."""
    pixels, truth = _read_idx(images, labels)
    drawn = [(glyphs.scaled(pixels, side) * 255).round().byte() for side in SIZES.values()]
    return torch.cat([glyphs.crops(each[:, None]) for each in drawn]), truth.repeat(len(drawn))


READERS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {  # (*a split's files) -> images, labels
    "idx": _read_idx,
    "idx, transposed": partial(_read_idx, transposed=True),
    "crops": _read_crops,
    "cifar10": _read_cifar10,
}
