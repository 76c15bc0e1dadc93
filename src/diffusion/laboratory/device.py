"""The device, and its memory."""

import contextlib
import ctypes

import torch

from diffusion.errors import UserError


def open_device(name: str) -> torch.device:
    """The device of --device auto, cpu or cuda; UserError if it is a GPU and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no CUDA GPU here (allowed: auto, cpu)")
    device = torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_memory()
    return device


def keep_memory() -> None:
    """Let malloc keep what tensors free: a training step of the CNN is a sixth faster for it.

    glibc hands large blocks back to the system, which gives them out again page by page, each filled with zeros.
    """
    largest_kept, kept = 32 * 2**20, 2**31 - 1  # bytes; both are the highest that glibc takes
    with contextlib.suppress(OSError, AttributeError):  # another libc has other ways
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-3, largest_kept)  # M_MMAP_THRESHOLD
        mallopt(-1, kept)  # M_TRIM_THRESHOLD
