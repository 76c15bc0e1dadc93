"""Jobs that are computed together, and the network calls of such."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor

from diffusion.method.denoiser import Cond
from diffusion.serving.suspended import Call, Suspended
from diffusion.serving.tasks import Task

Ask = Callable[[Tensor, Tensor, Cond], Tensor]  # a denoiser's `predict`, or what stands for it


class DeadlineExceeded(Exception):
    """The request took longer than it may."""


class Job:
    """A task on its way. `images` is a Future of (count, C, H, W); whoever loses interest cancels it."""

    def __init__(self, task: Task, deadline: float = float("inf")):
        self.task, self.deadline = task, deadline  # deadline by time.monotonic()
        self.images: Future[Tensor] = Future()
        self.left = task.cost  # image-calls that are still to be done

    @property
    def live(self) -> bool:
        return not self.images.done()

    def settle(self, outcome: Tensor | BaseException) -> None:
        """Set what came of it, unless it is settled or cancelled."""
        with suppress(InvalidStateError):
            if isinstance(outcome, Tensor):
                self.images.set_result(outcome)
            else:
                self.images.set_exception(outcome)


class Cohort:
    """Jobs that are computed together, and the call they wait for."""

    def __init__(self, jobs: Sequence[Job]):
        self.jobs, tasks = jobs, [job.task for job in jobs]
        self.sizes = [task.count for task in tasks]
        self.experiment = tasks[0].experiment
        self._suspended = Suspended(partial(tasks[0].compute, mates=tasks))
        self.call: Call | None = None
        self.live: Tensor | None = None  # which images are still wanted; None: all

    def resume(self, answer: Tensor | BaseException | None = None) -> None:
        """On to its next call, or to its end: then its jobs are settled, unless several have failed together."""
        try:
            self.call = self._suspended.resume(answer)
        except BaseException as error:
            self.call = None
            if len(self.jobs) == 1:
                self.jobs[0].settle(error)
            return
        if self.call is None:
            for job, images in zip(self.jobs, self._suspended.result.split(self.sizes)):
                job.settle(images)

    def unsettled(self) -> list[Job]:
        return [job for job in self.jobs if job.live]

    def close(self) -> None:
        self._suspended.close()
        self.call = None

    def look(self) -> bool:
        """See who still waits; whether anybody does."""
        waits = [job.live for job in self.jobs]
        self.live = None if all(waits) else torch.tensor(waits).repeat_interleave(torch.tensor(self.sizes))
        return any(waits)

    def live_rows(self) -> Tensor | None:
        """Which rows of the call are wanted; None: all. A guided call holds the images twice."""
        if self.live is None:
            return None
        return self.live.repeat(len(self.call.x) // len(self.live)).to(self.call.x.device)


def predict(cohorts: Sequence[Cohort], most: int, ask: Ask) -> tuple[list[Tensor], int]:
    """The network's outputs for the calls of cohorts of one experiment, at most so many rows at a time; all rows.

    Rows that nobody wants any more are not computed: their outputs are 0.
    """
    denoiser, calls = cohorts[0].experiment.denoiser, [cohort.call for cohort in cohorts]
    lives = [cohort.live_rows() for cohort in cohorts]
    wanted = lambda parts: torch.cat([part if live is None else part[live] for part, live in zip(parts, lives)])
    x, t = wanted([call.x for call in calls]), wanted([call.t.expand(len(call.x)) for call in calls])
    cond = None
    if (known := next((call.cond for call in calls if call.cond is not None), None)) is not None:
        null = denoiser.null(known[:1])  # to have no condition is to have this one
        cond = wanted([null.expand(len(c.x), *null.shape[1:]) if c.cond is None else c.cond for c in calls])
    size = math.ceil(len(x) / math.ceil(len(x) / most))
    conds = [None] * len(x) if cond is None else cond.split(size)
    parts = [ask(*part) for part in zip(x.split(size), t.split(size), conds)]
    outputs = torch.cat(parts).split([len(c.x) if live is None else int(live.sum()) for c, live in zip(calls, lives)])
    return [spread(output, live) for output, live in zip(outputs, lives)], len(x)


def spread(output: Tensor, live: Tensor | None) -> Tensor:
    """The outputs of the live rows in their places among all rows."""
    if live is None:
        return output
    whole = output.new_zeros(len(live), *output.shape[1:])
    whole[live] = output
    return whole
