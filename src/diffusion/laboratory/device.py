"""The device and its memory, and several processes: one Accelerator, whichever launcher started us."""

import atexit
import contextlib
import ctypes
import os
import re
import sys
from pathlib import Path
from typing import IO

import psutil
import torch
from accelerate import Accelerator

from diffusion.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HELD: dict[Path, IO] = {}  # locked files, open as long as this process lives


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
    """The Accelerator of --device; every process of a launch gets its own."""
    device = open_device(name)
    _start_the_others()
    return Accelerator(cpu=device.type == "cpu")


def _start_the_others() -> None:
    """Make `accelerate launch --cpu --num_processes N` mean what it says.

    Without MPI, accelerate 1.15 starts one process, names a MASTER_ADDR for the others and says nothing. This process
    then becomes torchrun's launcher of all N, with the same script and arguments.
    """
    alone = "RANK" not in os.environ and "OMPI_COMM_WORLD_RANK" not in os.environ and "PMI_RANK" not in os.environ
    if not (alone and os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ):
        return
    launcher = " ".join(psutil.Process(os.getppid()).cmdline())
    count = re.search(r"--num[_-]processes[= ](\d+)", launcher)
    if not count:
        raise UserError("accelerate started one process where several were asked for: "
                        f"use torchrun --nproc-per-node N {' '.join(sys.argv)}")  # fmt: skip
    port = os.environ.get("MASTER_PORT", "29500")
    words = ["-m", "torch.distributed.run", "--nproc-per-node", count[1], "--master-port", port, *sys.argv]
    os.execv(sys.executable, [sys.executable, *words])


def launched_by() -> list[str]:
    """The words before the script's name: Python's, or torchrun's of so many processes on this machine."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ["python"]
    return ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"]]


def hold(path: Path) -> bool:
    """Whether this process, from now to its end, is the only one to hold that file, which is there only as long."""
    path = path.resolve()
    if path in HELD or fcntl is None:
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "w")  # noqa: SIM115 (it is closed by the end of the process, whatever that is)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return False
    if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
        file.close()  # its last holder has just taken it away
        return hold(path)
    HELD[path] = file
    atexit.register(path.unlink, missing_ok=True)
    return True
