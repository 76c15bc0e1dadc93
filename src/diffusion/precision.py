"""Which numbers a processor computes in, whatever a caller has set in torch."""

import inspect
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

C = TypeVar("C")


@cache
def computes_bf16(device: torch.device) -> bool:
    """Whether the processor has units for bfloat16. Emulated, it takes twenty times as long as float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        return "bf16" in Path("/proc/cpuinfo").read_text()  # avx512_bf16, amx_bf16; bf16 on Arm
    except OSError:
        return False


def processor() -> str:
    """What the processor is and can do, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))


@contextmanager
def torch_defaults() -> Iterator[None]:
    """torch as it starts, float32 on the CPU without autocast: a caller's settings change no number, and come back."""
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield


def methods_with_torch_defaults(kind: type[C]) -> type[C]:
    """The class, its public methods under `torch_defaults`."""
    for name, method in list(vars(kind).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(kind, name, torch_defaults()(method))
    return kind
