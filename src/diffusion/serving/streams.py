"""A request answered as server-sent events: states on the way, then the images."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from torch import Tensor

from diffusion.method.process import Gaussian
from diffusion.serving.cohort import DeadlineExceeded, Job
from diffusion.serving.engine import Engine, deadline_problem
from diffusion.serving.orders import Order
from diffusion.serving.pictures import base64_png, side_by_side
from diffusion.serving.problems import of_error
from diffusion.serving.schemas import SamplingFields
from diffusion.serving.tasks import State

FRAMES = 64  # states that wait for a slow reader; more are left out, the images never
QUIET = 10.0  # seconds after which a comment says that the line is alive
PLAIN = {"size": "auto", "quality": "auto", "background": "opaque", "output_format": "png"}  # what OpenAI's events say
USAGE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}


def event(kind: str, **fields: Any) -> bytes:
    content = {"type": kind, "created_at": int(time.time()), **fields}
    return f"event: {kind}\ndata: {json.dumps(content)}\n\n".encode()


class Stream:
    """The events of one order; `kind` is "image_generation" or "image_edit"."""

    def __init__(self, kind: str, order: Order, request: SamplingFields, engine: Engine):
        self.kind, self.order, self.request, self.engine = kind, order, request, engine
        self.times = order.task.times()
        self.shown = self.steps_to_show(request.partial_images)
        self.states: asyncio.Queue[tuple[int, State, Any]] = asyncio.Queue(FRAMES)
        self.loop, self.step = asyncio.get_running_loop(), -1
        order.task.watch = self.watch if self.shown else None
        self.job: Job = engine.accept(order.task)
        self.frames = 0

    def steps_to_show(self, wanted: int | None) -> set[int]:
        steps = len(self.times) - 1
        if wanted is None or wanted >= steps:
            return set(range(steps))
        return {(i + 1) * steps // (wanted + 1) for i in range(wanted)}

    def watch(self, state: State) -> None:
        """Called by the worker: hand a state to the loop."""
        self.step += 1
        if self.step in self.shown:
            probabilities = self.order.served.probabilities(state.x_0) if self.request.probabilities else None
            self.loop.call_soon_threadsafe(self._offer, (self.step, state, probabilities))

    def _offer(self, item: tuple[int, State, Any]) -> None:
        if not self.states.full():
            self.states.put_nowait(item)

    async def events(self) -> AsyncIterator[bytes]:
        """The body. Whoever stops reading it gives the order up."""
        done = asyncio.ensure_future(asyncio.wrap_future(self.job.images))
        state: asyncio.Future | None = None
        try:
            while not (done.done() and self.states.empty()):
                state = asyncio.ensure_future(self.states.get())
                await asyncio.wait({done, state}, timeout=QUIET, return_when=asyncio.FIRST_COMPLETED)
                if state.done():
                    for part in await asyncio.to_thread(self.partials, *state.result()):
                        yield part
                else:
                    state.cancel()
                    if not done.done():
                        yield b": ping\n\n"
            for part in await asyncio.to_thread(self.completed, done.result()):
                yield part
        except Exception as error:  # the status was 200 long ago: an `error` member is how OpenAI's client is told
            late = isinstance(error, DeadlineExceeded)
            problem = deadline_problem(self.engine.settings.deadline) if late else of_error(error)
            yield f"event: error\ndata: {json.dumps(problem.body())}\n\n".encode()
        finally:
            done.cancel()
            if state:
                state.cancel()

    def partials(self, step: int, state: State, probabilities: list[list[float]] | None) -> list[bytes]:
        """The events of a state: one of all images as a sprite, or one for each."""
        process, fields = self.order.served.model.experiment.process, dict(PLAIN)
        later = [t for t in self.times if t < state.t]
        fields |= {"step": step, "steps": len(self.times) - 1, "t": state.t, "s": max(later, default=0.0)}
        fields |= {"nfe": state.nfe, "alpha": None, "sigma": None}
        if isinstance(process, Gaussian):
            alpha, sigma = process.schedule(state.at)
            fields |= {"alpha": alpha.item(), "sigma": sigma.item()}
        number, self.frames = self.frames, self.frames + 1
        fields |= {"partial_image_index": number, "seed": self.order.seed}
        if self.request.sprite:
            parts = [(None, side_by_side(state.x_t), side_by_side(state.x_0), probabilities)]
        else:
            shares = probabilities or [None] * len(state.x_t)
            parts = list(zip(self.order.index, state.x_t, state.x_0, shares))
        return [self.partial(fields, *part) for part in parts]

    def partial(self, fields: dict[str, Any], index: int | None, x_t: Tensor, x_0: Tensor, shares: Any) -> bytes:
        own: dict[str, Any] = {"b64_json": base64_png(x_t)}
        if index is not None:
            own["index"] = index
        if self.request.estimates:
            own["x_0"] = base64_png(x_0)
        if shares is not None:
            own["probabilities"] = shares
        return event(f"{self.kind}.partial_image", **fields, **own)

    def completed(self, images: Tensor) -> list[bytes]:
        """One event for each image."""
        order = self.order
        shares = order.served.probabilities(images) if self.request.probabilities else [None] * len(images)
        nfe, seed = order.task.calls, order.seed
        return [
            event(
                f"{self.kind}.completed",
                **PLAIN,
                usage=USAGE,
                b64_json=base64_png(image),
                **{"seed": seed, "index": index, "label": label, "nfe": nfe, "probabilities": share},
            )
            for image, index, label, share in zip(images, order.index, order.labels, shares)
        ]
