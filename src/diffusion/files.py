"""Files of tensors that are whole or absent: written atomically, read without running any code in them."""

import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from diffusion.errors import Failure, UserError, is_out_of_memory


def expand(path: str | Path) -> Path:
    """The path, in which ~ is the home folder: a shell has replaced it only where it begins a word."""
    return Path(os.path.expanduser(path))


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let `write` fill a temporary file in the same folder, then put it in the place of `path` in one step.

    A reader, or a kill at any moment, finds the old file or the new one, never a part. A failed write (full disk)
    raises OSError and leaves the old file as it was.
    """
    path = expand(path)
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder: name a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the rename itself must reach the disk too, where folders can be synced
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


def append_line(path: Path, content: Any) -> Path:
    """Add a line of JSON to the file, atomically."""
    text = (path.read_bytes() if path.exists() else b"") + json.dumps(content).encode() + b"\n"
    return write_atomically(path, lambda file: file.write(text))


def save(path: Path, content: Any) -> Path:
    """Write tensors and plain Python values (dict, list, str, numbers) atomically; `load` reads them back."""
    import torch

    packed = io.BytesIO()  # not straight to the file: torch's writer turns a full disk into a puzzling RuntimeError
    torch.save(content, packed)
    return write_atomically(path, lambda file: file.write(packed.getbuffer()))


def load(path: Path) -> Any:
    """The content of a file made by `save` (or any `torch.save` of tensors), on the CPU; no code in it is ever run.

    Raises UserError with one sentence if the file is missing, cannot be read, is cut short, or holds more than tensors,
    numpy's arrays and plain values; Failure if it is too large for the memory.
    """
    import torch

    path = expand(path)
    if not is_file(path):
        raise UserError(f"there is no file {str(path)!r}")
    what = "is not a weight file, or is cut short or damaged"
    try:
        if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip():  # torch does not look at the checksums
            raise zipfile.BadZipFile
        with torch.serialization.safe_globals(_numbers_of_numpy()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if is_out_of_memory(error):
            raise Failure(f"there is not enough memory to read {str(path)!r}") from None
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # those come of damaged files
            what = f"cannot be read: {os.strerror(error.errno).lower()}"
        elif isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            what = "holds Python objects other than tensors: it is not loaded, as it could run code"
        raise UserError(f"{str(path)!r} {what}") from None


@cache
def _numbers_of_numpy() -> list[Any]:
    """What numbers and arrays of numpy, which people save beside their weights, are rebuilt with: plain data."""
    import numpy as np

    rebuild = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.ones(1).__reduce__()[0]}
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # before numpy 2, and since
    found = [(function, f"{module}.{name}") for name, function in rebuild.items() for module in modules]
    return found + [np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in "?" + np.typecodes["AllInteger"] + "efd"}]


def is_file(path: Path) -> bool:
    """Whether there is such a file; UserError if the folder may not be looked into."""
    try:
        return path.is_file()
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {os.strerror(error.errno or 0).lower()}") from None


def put_aside(path: Path) -> Path:
    """Rename a file or folder to the first of path.1, path.2, … that is free, and say where it is."""
    aside = next(new for i in itertools.count(1) if not (new := path.with_name(f"{path.name}.{i}")).exists())
    os.rename(path, aside)
    return aside


def is_aside(folder: Path) -> bool:
    """Whether `put_aside` named this folder of a run; a run may be called unet_lr0.5, and has a file of that name."""
    return re.search(r"\.\d+$", folder.name) is not None and not (folder / f"{folder.name}.pth").exists()


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shipped_weights() -> Path:
    """The folder of the shipped weight files: weights/ of a checkout, diffusion/weights/ of an installed package."""
    inside = Path(__file__).with_name("weights")  # in a checkout a link, where the system has links
    return inside.resolve() if inside.is_dir() else Path(__file__).parents[2] / "weights"
