"""The processes that share the work of a training, whichever launcher started them."""

import os
import sys

from accelerate import Accelerator

from diffusion.errors import UserError
from diffusion.laboratory.device import open_device


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
