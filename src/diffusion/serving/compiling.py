"""Network calls that are compiled once it pays, while they are answered."""

import logging
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.method.denoiser import Cond, Denoiser
from diffusion.precision import computes_bf16
from diffusion.serving.catalogue import Served
from diffusion.serving.library import Compilation, Library, library_path

log = logging.getLogger(__name__)
PRICE = 30.0  # seconds of one core that compiling `unet` takes (docs/results.md, Speed)
TRIALS = 9  # calls that both forms answer
NEAR = {False: 1e-4, True: 0.1}  # in bfloat16 or not: how far an output may be from eager's, whose numbers are about 1


class State(Enum):
    EAGER = "eager"
    COMPILING = "compiling"  # or being tried
    COMPILED = "compiled"


class Trial(NamedTuple):
    call: tuple[Tensor, Tensor, Cond]
    inputs: tuple[Tensor, ...]  # the same, for the compiled form
    output: Tensor
    seconds: float


class Compiling:
    """`denoiser.predict`, which has its network compiled when its calls have cost as much as compiling costs.

    So it never costs more than twice the best that could have been done (ski rental). Until the compiled form is
    there, has answered some calls as the eager one did, and was faster, that one answers. It belongs to one thread.
    """

    def __init__(self, name: str, denoiser: Denoiser, null: Cond = None):
        """`null` (1, …) is the condition of an unconditional call, of a network that has conditions."""
        self.name, self.denoiser, self.null, self.state = name, denoiser, null, State.EAGER
        self.bf16 = denoiser.bf16 and computes_bf16(next(denoiser.parameters()).device)
        self.spent = 0.0  # seconds in calls of the eager form
        self.library: Library | None = None  # once it answers
        self.compilation: Compilation | None = None
        self._life: Generator[None, Trial, None] | None = self._live()
        next(self._life)

    def __call__(self, x: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        """What `predict` answers."""
        if self.library is not None:
            return self.library(*self._inputs(x, t, cond)).float()
        output, seconds = timed(self.denoiser.predict, x, t, cond)
        self.spent += seconds
        if self._life is not None:
            self._advance(Trial((x, t, cond), self._inputs(x, t, cond), output, seconds))
        return output

    def close(self) -> None:
        """End the process that compiles, if there is one."""
        if self.compilation is not None and self.compilation.running:
            self.compilation.stop()

    def _inputs(self, x: Tensor, t: Tensor, cond: Cond) -> tuple[Tensor, ...]:
        """What the compiled form takes, which looks at no strides: contiguous tensors."""
        inputs = [x.float(), t.float().expand(len(x))]
        if self.null is not None:
            inputs.append(self.null.expand(len(x), *self.null.shape[1:]) if cond is None else cond.long())
        return tuple(each.contiguous() for each in inputs)

    def _advance(self, trial: Trial) -> None:
        """On to the next call; whatever goes wrong, the eager form stays."""
        assert self._life is not None
        try:
            self._life.send(trial)
        except StopIteration:
            self._life = None
        except Exception as error:
            self._life, self.state = None, State.EAGER
            log.info("%s stays eager: %s", self.name, error)

    def _live(self) -> Generator[None, Trial, None]:
        """What happens beside the calls; it is told of each."""
        trial = yield
        path = library_path(self.denoiser.network, trial.inputs, self.bf16)
        if not path.exists():
            while self.spent < PRICE:
                trial = yield
            log.info("%s: its calls took %.0f s, so it is compiled meanwhile", self.name, self.spent)
            self.state = State.COMPILING
            self.compilation = Compilation(path, self.denoiser.network, trial.inputs, self.bf16)
            while self.compilation.running:
                yield
            if failure := self.compilation.failure:
                raise RuntimeError(failure)
        self.state = State.COMPILING
        try:
            library = Library(path)
            share = yield from self._compare(library)
        except Exception:
            with suppress(OSError):
                path.unlink()  # the next process compiles anew
            raise
        self.library, self.state = (library, State.COMPILED) if share < 1 else (None, State.EAGER)
        log.info("%s is %s: compiled, its calls take %.0f %% of the time", self.name, self.state.value, 100 * share)

    def _compare(self, library: Library) -> Generator[None, Trial, float]:
        """The median share of the eager form's time that the library took; RuntimeError if their outputs differ.

        Each answers twice, in turn, and the quicker time counts: the first call of a shape pays for those after it.
        """
        shares = []
        for _ in range(TRIALS):
            trial = yield
            output, first = timed(library, *trial.inputs)
            _, again = timed(self.denoiser.predict, *trial.call)
            shares.append(min(first, timed(library, *trial.inputs)[1]) / min(trial.seconds, again))
            furthest = ((output - trial.output).abs() / (1 + trial.output.abs())).max().item()
            if not furthest <= NEAR[self.bf16]:
                raise RuntimeError(f"compiled, its output differs by {furthest:.2g}")
        return statistics.median(shares)


def timed(function: Callable[..., Tensor], *inputs: Cond) -> tuple[Tensor, float]:
    """What it answers, in float32, and the seconds of this thread, which depend less on who else computes."""
    began = time.thread_time()
    output = function(*inputs).float()
    return output, time.thread_time() - began


def compile_when_it_pays(models: Iterable[Served], choice: str) -> dict[int, Compiling]:
    """What answers for the networks that may be compiled, by the id of their experiment; `choice` as in Settings."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if choice != "no" and shutil.which(compiler) is None:
        log.info("networks are not compiled: there is no %s", compiler)
        return {}
    found = {}
    for name, model in ((served.name, served.model) for served in models) if choice != "no" else ():
        denoiser, config = model.experiment.denoiser, model.config
        null = None
        if config.conditional:
            length = (config.caption_length,) if config.reads else ()
            null = denoiser.null(torch.zeros(1, *length, dtype=torch.int64))
        one = Compiling(name, denoiser, null)
        if model.device.type == "cpu" and (choice == "bf16" or not one.bf16):
            found[id(model.experiment)] = one
    return found
