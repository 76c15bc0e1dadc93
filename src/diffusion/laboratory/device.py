"""The device, its memory, and the processes that share the work, whichever launcher started them."""

import contextlib
import ctypes
import os
import sys

import torch
from accelerate import Accelerator

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


def open_accelerator(name: str) -> Accelerator:
    """The Accelerator of --device; every process of a launch gets its own. UserError if the launcher's settings do not
    fit together or to this machine.

    So it is under `accelerate launch --cpu --num_processes N` without MPI: accelerate 1.15 starts one process, names a
    MASTER_ADDR for the others and says nothing.
    """
    device = open_device(name)
    alone = not {"RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"} & set(os.environ)
    if alone and os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ:
        command = " ".join(sys.argv)
        raise UserError(f"accelerate started one process of several: use torchrun --nproc-per-node N {command}")
    rank, world = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    if rank.isdecimal() and world.isdecimal() and int(rank) >= int(world):  # torch would wait half an hour for others
        raise UserError(f"the launcher's settings do not fit: of {world} processes (WORLD_SIZE) none is RANK {rank}")
    try:
        return Accelerator(cpu=device.type == "cpu")
    except (ValueError, ImportError, RuntimeError, KeyError) as error:  # torch's and accelerate's own sentences
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the launcher's settings (RANK, MASTER_ADDR, ACCELERATE_…) do not fit: {reason}") from None
