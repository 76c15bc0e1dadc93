"""Networks as libraries of machine code: TorchInductor's (Ansel et al., 2024), compiled by another process."""

import ctypes
import hashlib
import inspect
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from ctypes import byref, c_char_p, c_size_t, c_void_p, py_object
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.precision import processor

NICE = 5  # by which the compiling process steps back: it gets a quarter of a core that another wants, too
OPTIONS = {"emulate_precision_casts": True, "compile_threads": 1}  # casts: bfloat16 is rounded where eager rounds it
_pointer_of, _capsule_of = ctypes.pythonapi.PyCapsule_GetPointer, ctypes.pythonapi.PyCapsule_New
_pointer_of.restype, _pointer_of.argtypes = c_void_p, [py_object, c_char_p]
_capsule_of.restype, _capsule_of.argtypes = py_object, [c_void_p, c_char_p, c_void_p]


class Library:
    """A compiled network: contiguous tensors of any batch size in, one out. RuntimeError if it fails.

    It is called by its C interface: torch's own loader would hold up all of Python's threads until a call is over.
    """

    def __init__(self, path: Path):
        self._code, self._handle = ctypes.CDLL(str(path)), c_void_p()
        create = self._code.AOTInductorModelContainerCreateWithDevice
        self._check(create(byref(self._handle), c_size_t(1), b"cpu", None))

    def __call__(self, *inputs: Tensor) -> Tensor:
        capsules = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(list(inputs))
        given = (c_void_p * len(inputs))(*(_pointer_of(each, None) for each in capsules))  # the call frees them
        answer, run = c_void_p(), self._code.AOTInductorModelContainerRun
        self._check(run(self._handle, given, c_size_t(len(inputs)), byref(answer), c_size_t(1), None, None))
        return torch._C._aoti.alloc_tensor_by_stealing_from_void_ptr(_capsule_of(answer, None, None))

    @staticmethod
    def _check(failed: int) -> None:
        if failed:
            raise RuntimeError("the compiled network failed")


def library_path(network: nn.Module, inputs: Sequence[Tensor], bf16: bool) -> Path:
    """Where the library of a network with these weights is, or would be, for this processor, torch and threads.

    In the folder that TORCHINDUCTOR_CACHE_DIR names, or in that of the user's caches.
    """
    shapes = [(each.dtype, each.shape[1:]) for each in inputs]
    parts = [torch.__version__, processor(), repr(network), f"{torch.get_num_threads()} {bf16} {OPTIONS} {shapes}"]
    homes = {sys.modules[type(each).__module__] for each in network.modules()} | {sys.modules[__name__]}
    parts += sorted(inspect.getsource(home) for home in homes if not home.__name__.startswith("torch."))
    digest = hashlib.sha256("\0".join(parts).encode())
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {value.shape} {value.stride()}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy())
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cold_dif_model"
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or caches) / f"diffusion_{digest.hexdigest()[:32]}.so"


class Compilation:
    """A process that writes the library of `network(*inputs)` to `path`, in about half a minute of one core.

    It leads a group of its own, to which the compilers belong that it calls: they are stopped with it.
    """

    def __init__(self, path: Path, network: nn.Module, inputs: Sequence[Tensor], bf16: bool):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(dir=path.parent))
        self.said = tempfile.TemporaryFile()  # noqa: SIM115  of a pipe that nobody reads, writing would come to a halt
        order = (path, self.folder, network, tuple(inputs), bf16, torch.get_num_threads())
        code = f"from {__name__} import compile_in_background; compile_in_background()"
        surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
        with tempfile.TemporaryFile() as file:  # a pipe would hold up the caller until the other side reads
            pickle.dump(order, file)
            file.seek(0)
            streams: dict[str, Any] = {"stdin": file, "stdout": subprocess.DEVNULL, "stderr": self.said}
            command = [sys.executable, "-c", code]
            self.process = subprocess.Popen(command, env=surroundings, start_new_session=True, **streams)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def failure(self) -> str | None:
        """Of one that is over: what went wrong, if something did."""
        self.said.seek(0)
        said = self.said.read().decode(errors="replace").strip().splitlines()
        return (said or ["it was killed"])[-1] if self.process.returncode else None

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def compile_in_background() -> None:
    """What the other process does with the order on its standard input."""
    os.nice(NICE)
    path, folder, *order = pickle.load(sys.stdin.buffer)
    try:
        compile_to(path, folder, *order)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        sys.exit(f"{type(error).__name__}: {reason}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@torch.no_grad()
def compile_to(
    path: Path, folder: Path, network: nn.Module, inputs: tuple[Tensor, ...], bf16: bool, threads: int
) -> None:
    """Write the library, tried once, to `path`. Only the batch size, the first of each shape, is left open.

    The folder is for what comes and goes meanwhile.
    """
    from torch._inductor import aot_compile  # takes seconds to import

    torch.set_num_threads(threads)
    inputs = tuple(torch.cat([each, each]) for each in inputs)  # of a single row, it would take the size for fixed
    shapes = tuple({0: torch.export.Dim("batch", min=1)} for _ in inputs)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        library = folder / path.name
        program = torch.export.export(network, inputs, dynamic_shapes=shapes).module()
        aot_compile(program, inputs, options=OPTIONS | {"aot_inductor.output_path": str(library)})
        Library(library)(*inputs)
        os.replace(library, path)
