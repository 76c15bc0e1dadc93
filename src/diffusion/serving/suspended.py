"""A function that stops wherever it wants a network call, and goes on with the answer."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from torch import Tensor

from diffusion.method.denoiser import Cond


class Call(NamedTuple):
    """What a sampler wants to know of its denoiser."""

    x: Tensor  # (B, C, H, W)
    t: Tensor  # (B,) or ()
    cond: Cond


class Closed(BaseException):
    """Ends a suspended function from outside, wherever it waits."""


class Suspended:
    """A coroutine for code that knows nothing of coroutines: `function(ask)` calls `ask(x, t, cond)` and gets x_0.

    It lives on a thread of its own, but that and the caller of `resume` never run at the same time. So samplers,
    guidance and edits stay as they are, and somebody else may answer the calls of many of them together.
    """

    def __init__(self, function: Callable[[Callable[..., Tensor]], Any]):
        self._questions: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._answers: SimpleQueue[Tensor | BaseException | None] = SimpleQueue()
        self._thread = Thread(target=self._run, args=(function,), name="sampler", daemon=True)
        self.finished, self.result = False, None

    def resume(self, answer: Tensor | BaseException | None = None) -> Call | None:
        """Run it to its next call, which is returned, or to its end: None, and `result` is there.

        `answer` is that of the call before; an exception is raised where it waits. What it raises, `resume` raises.
        """
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._answers.put(answer)
        kind, value = self._questions.get()
        if kind == "call":
            return value
        self.finished = True
        self._thread.join()
        if kind == "raised":
            raise value
        self.result = value
        return None

    def close(self) -> None:
        """End it where it waits."""
        if self._thread.ident is None or self.finished:
            return
        try:
            while self.resume(Closed()):
                pass
        except BaseException:  # that very one, or what it became on its way: nobody asks any more
            pass

    def _run(self, function: Callable[[Callable[..., Tensor]], Any]) -> None:
        try:
            self._questions.put(("returned", function(self._ask)))
        except BaseException as error:  # it belongs to the caller of resume, whatever it is
            self._questions.put(("raised", error))

    def _ask(self, x: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        self._questions.put(("call", Call(x, t, cond)))
        answer = self._answers.get()
        if not isinstance(answer, Tensor):
            raise answer or Closed()
        return answer
