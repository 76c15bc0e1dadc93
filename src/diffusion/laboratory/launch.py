"""Several processes: one Accelerator, whichever launcher started us."""

import os
import re
import sys

import psutil
from accelerate import Accelerator

from diffusion.errors import UserError
from diffusion.laboratory.device import open_device


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
