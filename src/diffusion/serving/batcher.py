"""Continuous batching: one thread owns the networks, and requests join and leave between two network calls.

Each task runs on its own, suspended wherever it wants a network call. A round answers the open calls of one experiment
together, each row at its own t, and lets every task go on to its next call. Tasks with equal settings that wait
together are one cohort: their few operations between two calls are done once.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from itertools import groupby
from threading import Condition, Thread

import torch
from torch import Tensor

from diffusion.serving.suspended import Call, Suspended
from diffusion.serving.tasks import Task

log = logging.getLogger(__name__)
Observe = Callable[[int, float, float], object]  # told of every round: its rows, its seconds, those in the network
PATIENCE = 20.0  # seconds that a round may take before the worker counts as stuck


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
        """On to its next call, or to its end: then all jobs are settled."""
        try:
            self.call = self._suspended.resume(answer)
        except BaseException as error:
            self.call = None
            for job in self.jobs:
                job.settle(error)
            return
        if self.call is None:
            for job, images in zip(self.jobs, self._suspended.result.split(self.sizes)):
                job.settle(images)

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


class Batcher:
    """Runs the jobs that are submitted, in a thread of its own; `max_rows` at a time, and in a network call."""

    def __init__(self, max_rows: int = 64, observe: Observe = lambda *round: None):
        self.max_rows, self.observe = max_rows, observe
        self._lately: deque[tuple[int, float]] = deque([(10, 0.1)], maxlen=50)  # rows and seconds of rounds
        self._waiting: deque[Job] = deque()
        self._cohorts: list[Cohort] = []
        self._changed, self._stopping = Condition(), False
        self._beat = time.monotonic()
        self._thread = Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def stop(self, timeout: float | None = None) -> None:
        """End the thread after the round it is in; jobs that are left are cancelled."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def rate(self) -> float:
        """Image-calls a second, lately."""
        rows, seconds = zip(*list(self._lately))
        return sum(rows) / max(sum(seconds), 1e-6)

    @property
    def backlog(self) -> int:
        """Image-calls that are still to be done."""
        jobs = [*list(self._waiting), *(job for cohort in list(self._cohorts) for job in cohort.jobs)]
        return sum(job.left for job in jobs if job.live)

    @property
    def moves(self) -> bool:
        """Whether the worker lives, and is idle or finished a round lately."""
        busy = bool(self._waiting or self._cohorts)
        return self.alive and not (busy and time.monotonic() - self._beat > PATIENCE)

    # --- In the worker's thread ---

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                if not (self._waiting or self._cohorts):
                    self._changed.wait()
                self._beat = time.monotonic()
            self._drop()
            self._admit()
            if self._cohorts:
                self._round()
        for cohort in self._cohorts:
            cohort.close()
        for job in [*(job for cohort in self._cohorts for job in cohort.jobs), *self._waiting]:
            job.images.cancel()

    def _drop(self) -> None:
        """Let go of what nobody waits for any more."""
        with self._changed:
            jobs = [*self._waiting, *(job for cohort in self._cohorts for job in cohort.jobs)]
        now = time.monotonic()
        for job in jobs:
            if job.deadline < now:
                job.settle(DeadlineExceeded())
        for cohort in self._cohorts:
            if not cohort.look():
                cohort.close()
        self._cohorts = [cohort for cohort in self._cohorts if cohort.call]
        with self._changed:
            self._waiting = deque(job for job in self._waiting if job.live)

    def _admit(self) -> None:
        """Begin with those who wait longest, as far as there is room."""
        room = self.max_rows - sum(len(cohort.call.x) for cohort in self._cohorts)
        while self._waiting and (self._waiting[0].task.rows <= room or not self._cohorts):
            jobs = self._take(room)
            room -= sum(job.task.rows for job in jobs)
            self._begin(jobs)

    def _take(self, room: int) -> list[Job]:
        """The job that waits longest, and of its equals as many as there is room for."""
        with self._changed:
            jobs = [self._waiting.popleft()]
            room -= jobs[0].task.rows
            for job in list(self._waiting) if (key := jobs[0].task.key) is not None else ():
                if job.task.key == key and job.task.rows <= room:
                    self._waiting.remove(job)
                    jobs.append(job)
                    room -= job.task.rows
        return jobs

    def _begin(self, jobs: Sequence[Job]) -> None:
        cohort = Cohort(jobs)
        cohort.resume()
        if cohort.call:
            self._cohorts.append(cohort)

    def _round(self) -> None:
        """Answer every open call once."""
        began, rows, inside = time.monotonic(), 0, 0.0
        for cohorts in self._groups():
            more, seconds = self._answer(cohorts)
            rows, inside = rows + more, inside + seconds
        self._cohorts = [cohort for cohort in self._cohorts if cohort.call]
        seconds = time.monotonic() - began
        self._lately.append((rows, seconds))
        self.observe(rows, seconds, inside)

    def _groups(self) -> Iterable[list[Cohort]]:
        """The cohorts whose calls are answered by one network call: those of one experiment."""
        of = lambda cohort: id(cohort.experiment)
        return [list(group) for _, group in groupby(sorted(self._cohorts, key=of), key=of)]

    @torch.no_grad()
    def _answer(self, cohorts: list[Cohort]) -> tuple[int, float]:
        """One network call for all of them, and on they go; its rows and seconds. If it fails, each is tried alone."""
        began = time.monotonic()
        try:
            outputs, rows = predict(cohorts, self.max_rows)
        except Exception as error:
            if len(cohorts) > 1:
                rows, seconds = zip(*(self._answer([cohort]) for cohort in cohorts))
                return sum(rows), sum(seconds)
            log.exception("a network call failed")
            outputs, rows = [error], 0
        seconds = time.monotonic() - began
        for cohort, output in zip(cohorts, outputs):
            for job in cohort.jobs:
                job.left = max(0, job.left - len(cohort.call.x) * job.task.count // sum(cohort.sizes))
            cohort.resume(output)
        return rows, seconds


def predict(cohorts: Sequence[Cohort], most: int) -> tuple[list[Tensor], int]:
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
    parts = [denoiser.predict(*part) for part in zip(x.split(size), t.split(size), conds)]
    outputs = torch.cat(parts).split([len(c.x) if live is None else int(live.sum()) for c, live in zip(calls, lives)])
    return [spread(output, live) for output, live in zip(outputs, lives)], len(x)


def spread(output: Tensor, live: Tensor | None) -> Tensor:
    """The outputs of the live rows in their places among all rows."""
    if live is None:
        return output
    whole = output.new_zeros(len(live), *output.shape[1:])
    whole[live] = output
    return whole
