"""Several processes: one Accelerator, whichever launcher started us."""

import os
import sys

from accelerate import Accelerator

from diffusion.errors import UserError
from diffusion.laboratory.device import open_device


def open_accelerator(name: str) -> Accelerator:
    """The Accelerator of --device; every process of a launch gets its own.

    UserError under `accelerate launch --cpu --num_processes N` without MPI: accelerate 1.15 starts one process, names
    a MASTER_ADDR for the others and says nothing.
    """
    device = open_device(name)
    alone = not {"RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"} & set(os.environ)
    if alone and os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ:
        command = " ".join(sys.argv)
        raise UserError(f"accelerate started one process of several: use torchrun --nproc-per-node N {command}")
    return Accelerator(cpu=device.type == "cpu")
