"""Continuous batching: one thread owns the networks, and requests join and leave between two network calls.

Each task runs on its own, suspended wherever it wants a network call. A round answers the open calls of one experiment
together, each row at its own t, and lets every task go on to its next call. Tasks with equal settings that wait
together are one cohort: their few operations between two calls are done once.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from threading import Condition, Thread

import torch
from torch import Tensor

from diffusion.errors import Failure
from diffusion.experiment.build import Experiment
from diffusion.serving.cohort import Ask, Cohort, DeadlineExceeded, Job, predict

log = logging.getLogger(__name__)
Observe = Callable[[int, float, float], object]  # told of every round: its rows, its seconds, those in the network
PATIENCE = 20.0  # seconds that a round may take before the worker counts as stuck


class Batcher:
    """Runs the jobs that are submitted, in a thread of its own, `max_rows` rows at a time."""

    def __init__(self, max_rows: int = 64, observe: Observe = lambda *round: None):
        self.max_rows, self.observe = max_rows, observe
        self.network_of: Callable[[Experiment], Ask] = lambda experiment: experiment.denoiser.predict
        self._lately: deque[tuple[int, float]] = deque([(10, 0.1)], maxlen=50)  # rows and seconds of rounds
        self._open: set[Job] = set()  # submitted and not done, wherever they are between waiting and being computed
        self._waiting: deque[Job] = deque()
        self._cohorts: list[Cohort] = []
        self._changed, self._stopping = Condition(), False
        self._beat = time.monotonic()
        self._thread = Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        self._open.add(job)
        job.images.add_done_callback(lambda _: self._open.discard(job))
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def stop(self, timeout: float | None = None) -> None:
        """End the thread after the round it is in; jobs that are left fail."""
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
        return sum(job.left for job in list(self._open))

    @property
    def moves(self) -> bool:
        """Whether the worker lives, and is idle or finished a round lately."""
        busy = bool(self._waiting or self._cohorts)
        return self.alive and not (busy and time.monotonic() - self._beat > PATIENCE)

    # --- In the worker's thread ---

    def _run(self) -> None:
        try:
            while not self._stopping:
                with self._changed:
                    if not (self._waiting or self._cohorts):
                        self._changed.wait()
                    self._beat = time.monotonic()
                self._drop()
                self._admit()
                if self._cohorts:
                    self._round()
        finally:
            for job in [*(job for cohort in self._cohorts for job in cohort.jobs), *self._waiting]:
                job.settle(Failure("the server was stopped before this was done"))
            for cohort in self._cohorts:
                cohort.close()

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
        self._resume(cohort)
        if cohort.call:
            self._cohorts.append(cohort)

    def _resume(self, cohort: Cohort, answer: Tensor | BaseException | None = None) -> None:
        """On to its next call. Jobs that fail together are begun again, each alone, so that only the guilty fails."""
        cohort.resume(answer)
        for job in cohort.unsettled() if cohort.call is None else ():
            self._begin([job])

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
            outputs, rows = predict(cohorts, self.max_rows, self.network_of(cohorts[0].experiment))
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
            self._resume(cohort, output)
        return rows, seconds
