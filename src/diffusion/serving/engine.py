"""The worker seen from the event loop: what is accepted, waited for, given up; when the server is ready."""

import asyncio
import math
import time
from collections.abc import Callable
from enum import Enum

import torch
from torch import Tensor

from diffusion.experiment.build import Experiment
from diffusion.serving.batcher import Batcher
from diffusion.serving.catalogue import Catalogue, load_catalogue
from diffusion.serving.cohort import Ask, DeadlineExceeded, Job
from diffusion.serving.compiling import Compiling, State, compile_when_it_pays
from diffusion.serving.metrics import Metrics
from diffusion.serving.problems import ClientGone, Problem
from diffusion.serving.settings import Settings
from diffusion.serving.tasks import Task


class Phase(Enum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class Engine:
    """Models, worker and the bounded queue before it."""

    def __init__(self, settings: Settings, device: torch.device):
        self.settings, self.device, self.metrics = settings, device, Metrics()
        self.batcher = Batcher(settings.max_rows, self.metrics.observe_round)
        self.phase, self.catalogue = Phase.LOADING, Catalogue([], {})
        self.compiling: dict[int, Compiling] = {}  # by the id of their experiment
        self.open: set[Job] = set()  # accepted and not done
        self.error: Exception | None = None  # why the models could not be loaded
        self.after_loading: Callable[[], object] = lambda: None
        self.metrics.follow("queue_image_calls", "accepted and not done", lambda: self.batcher.backlog)
        self.metrics.follow("open_requests", "accepted and not done", lambda: len(self.open))
        self.metrics.follow("image_calls_per_second", "measured lately", lambda: self.batcher.rate)
        count = lambda state: lambda: sum(each.state is state for each in self.compiling.values())
        self.metrics.follow("compiling_networks", "being compiled or tried", count(State.COMPILING))
        self.metrics.follow("compiled_networks", "that answer compiled", count(State.COMPILED))

    async def load(self) -> None:
        """Load the models, off the loop; then requests are accepted."""
        try:
            self.catalogue = await asyncio.to_thread(load_catalogue, self.settings.weights, self.device)
            await asyncio.to_thread(warm_up, self.catalogue)
            self.compiling = compile_when_it_pays(self.catalogue, self.settings.compile)
            self.batcher.network_of = self.network_of
            self.batcher.start()
            self.phase = Phase.READY
        except Exception as error:
            self.phase, self.error = Phase.FAILED, error
        self.after_loading()

    def network_of(self, experiment: Experiment) -> Ask:
        return self.compiling.get(id(experiment), experiment.denoiser.predict)

    @property
    def health(self) -> tuple[bool, str]:
        """Whether it is of use to wait for this process, and why not."""
        if self.phase is Phase.FAILED:
            return False, "the models could not be loaded"
        if self.phase is Phase.READY and not self.batcher.moves:
            return False, "the worker does not move"
        return True, self.phase.value

    def check_ready(self) -> None:
        """Problem 503 while loading or draining."""
        if self.phase is not Phase.READY:
            why = {Phase.LOADING: "the models are being loaded", Phase.DRAINING: "the server is being stopped"}
            detail = why.get(self.phase, "the models could not be loaded")
            raise Problem(503, detail, code=self.phase.value, retry_after="2")

    def accept(self, task: Task) -> Job:
        """The task as a job in the queue; Problem if the queue is full, or the task would never fit."""
        self.check_ready()
        most, backlog = self.settings.max_queue, self.batcher.backlog
        if task.cost > most:
            what = f"{task.cost:,} image-calls (images × network calls, twice with guidance) are more than {most:,}"
            raise Problem(422, f"{what}: ask for fewer images or steps", code="too_much")
        if backlog + task.cost > most:
            wait = math.ceil((backlog + task.cost - most) / max(self.batcher.rate, 1.0))
            self.metrics.refused.inc()
            detail = f"the queue is full ({backlog:,} image-calls of {most:,}): come again in {wait} s"
            raise Problem(429, detail, code="queue_full", retry_after=str(wait))
        job = Job(task, time.monotonic() + self.settings.deadline)
        self.open.add(job)
        job.images.add_done_callback(lambda _: self._forget(job))
        self.batcher.submit(job)
        return job

    def _forget(self, job: Job) -> None:
        self.open.discard(job)
        if job.images.cancelled():
            self.metrics.cancelled.inc()

    async def images(self, job: Job, gone: Callable[[], object]) -> Tensor:
        """The images of a job; given up when `gone()` returns, which waits for the client to go away."""
        waiting = asyncio.ensure_future(asyncio.wrap_future(job.images))
        leaving = asyncio.ensure_future(gone())
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise ClientGone("the client went away")
            return waiting.result()
        except DeadlineExceeded:
            raise deadline_problem(self.settings.deadline) from None
        finally:
            leaving.cancel()
            waiting.cancel()

    async def drain(self) -> None:
        """Accept nothing more and wait for what is open, as long as the settings say; what is left then fails."""
        self.phase = Phase.DRAINING
        until = time.monotonic() + self.settings.drain_seconds
        while self.open and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        if self.batcher.alive:
            self.batcher.stop(timeout=10)
        self.close()

    def close(self) -> None:
        """End the processes that it has started."""
        for each in self.compiling.values():
            each.close()


@torch.no_grad()
def warm_up(catalogue: Catalogue) -> None:
    """A call of every network: the first pays for what the next ones find done."""
    for served in catalogue:
        experiment = served.model.experiment
        x, t = (
            torch.zeros(1, *experiment.codec.shape, device=experiment.device),
            torch.ones(1, device=experiment.device),
        )
        experiment.denoiser.predict(x, t, None)


def deadline_problem(seconds: float) -> Problem:
    detail = f"not finished within {seconds:g} s: ask for fewer images or steps"
    return Problem(504, detail, code="deadline_exceeded", x_should_retry="false")
