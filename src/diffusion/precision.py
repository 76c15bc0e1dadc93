"""Which numbers a processor computes in."""

from functools import cache
from pathlib import Path

import torch


@cache
def computes_bf16(device: torch.device) -> bool:
    """Whether the processor has units for bfloat16. Emulated, it takes twenty times as long as float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        return "bf16" in Path("/proc/cpuinfo").read_text()  # avx512_bf16, amx_bf16; bf16 on Arm
    except OSError:
        return False
