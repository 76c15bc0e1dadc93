"""The trials of a sweep, in a database that its workers share, on one machine or many."""

import argparse
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from diffusion.errors import Failure, UserError
from diffusion.laboratory.heartbeat import BEAT, GRACE

# Options that change no result, or only add trials; the others have to stay as they were when the sweep began.
FREE = {"presets", "seeds", "trials", "name", "storage", "out", "data_root", "device", "resume"}
FREE |= {"save_every", "eval_every", "inception_weights"}


class Lost(BaseException):
    """The trial was taken for dead and given to another worker. No Exception, or optuna would end it a second time."""


class Storage(RDBStorage):
    """Optuna's database, for workers that start and die at any moment."""

    def __init__(self, url: str):
        patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
        super().__init__(url, patience, heartbeat_interval=BEAT, grace_period=GRACE)
        if self.engine.name == "sqlite":  # without SELECT … FOR UPDATE two workers would take the same trial
            alone = lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE")
            sqlalchemy.event.listen(self.engine, "begin", alone)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if state == TrialState.RUNNING:  # nobody would miss a worker that is killed before its first heartbeat
            self.record_heartbeat(trial_id)
        return super().set_trial_state_values(trial_id, state, values)


def open_storage(url: str) -> Storage:
    """The database at a URL, made if it is not there; UserError if it cannot be opened."""
    for tries_left in (2, 1, 0):
        try:
            return Storage(url)
        except Exception as error:  # optuna, SQLAlchemy and every driver have their own
            if not tries_left or not isinstance(error, sqlalchemy.exc.DBAPIError):
                raise UserError(f"--storage cannot be opened: {str(error).strip().splitlines()[0]}") from None
            time.sleep(1)  # another worker may be making the same tables right now


class Sweep:
    """The trials of a sweep and their folder. Each has a `cell`, the name of what is tried; a cell needs one result."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.folder = args, args.out / "runs" / "sweeps" / args.name
        self.cells: dict[str, dict[str, Any]] = {f"trial_{i}": {} for i in range(args.trials)}
        if args.presets:
            seeds = range(args.seed, args.seed + args.seeds)
            self.cells = {f"{p}_seed_{s}": {"preset": p, "seed": s} for p in args.presets for s in seeds}
        if not args.storage:
            self.folder.mkdir(parents=True, exist_ok=True)
        storage = open_storage(args.storage or f"sqlite:///{self.folder / 'trials.db'}")
        self.study = optuna.create_study(storage=storage, study_name=args.name, load_if_exists=True)
        asked = {key: value for key, value in vars(args).items() if key not in FREE}
        self.study.set_user_attr("asked", begun := self.study.user_attrs.get("asked", asked))
        for key, value in asked.items():
            if begun.get(key) != value:
                was = f"the sweep {args.name!r} was begun with {key} {begun.get(key)}, not {value}"
                raise UserError(f"{was}: say the same, or give this one another --name")

    def work(self, attempt: Callable[[optuna.Trial], float]) -> None:
        """Attempt one trial after the other until none waits.

        A Failure is final. After any other error the cell is queued again by whoever looks for work next.
        """
        while self._enqueue():
            with contextlib.suppress(Lost):
                self.study.optimize(lambda trial: self._own(trial, attempt), n_trials=1, catch=Failure)

    def _enqueue(self) -> bool:
        """Queue every cell without a live trial: a new one, or one whose worker died or was stopped.

        The latter keeps the settings that were drawn for it. Returns whether any trial waits.
        """
        fail_stale_trials(self.study)
        latest = self.latest()
        for cell, attrs in self.cells.items():
            if cell not in latest or not is_live(latest[cell]):
                params = latest[cell].params if cell in latest else {}
                self.study.enqueue_trial(params, user_attrs={"cell": cell, **attrs})
        return bool(self.study.get_trials(deepcopy=False, states=[TrialState.WAITING]))

    def _own(self, trial: optuna.Trial, attempt: Callable[[optuna.Trial], float]) -> float:
        cell = trial.user_attrs.get("cell")
        if not cell or self.latest()[cell].number != trial.number:
            raise Failure("another worker queued the cell, too, or took the last one first")
        try:
            trial.set_user_attr("host", socket.gethostname())
            return attempt(trial)
        except UpdateFinishedTrialError:
            raise Lost from None

    def latest(self) -> dict[str, FrozenTrial]:
        """Of each cell the trial that counts: the first that is live, otherwise the last that was tried."""
        found: dict[str, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            cell = trial.user_attrs.get("cell")
            if cell and not (cell in found and is_live(found[cell])):
                found[cell] = trial
        return found


def is_live(trial: FrozenTrial) -> bool:
    """Whether a trial has a result, may still get one, or failed for a reason that would not go away."""
    return trial.state != TrialState.FAIL or "error" in trial.user_attrs
