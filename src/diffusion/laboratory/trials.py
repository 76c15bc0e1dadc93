"""The trials of a sweep in one storage that several workers share, on one machine or many."""

import argparse
import contextlib
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from diffusion.errors import UserError

BEAT, GRACE = 30, 600  # seconds between two signs of life of a worker; silent for so long, it is taken for dead
# Options that change no result, or only add trials; the others have to stay as they were when the sweep began.
FREE = {"presets", "seeds", "trials", "name", "storage", "out", "data_root", "device", "resume", "save_every",
        "eval_every", "inception_weights"}  # fmt: skip


class Lock(JournalFileOpenLock):
    """Of the journal. Whoever takes it first cuts off the half line that a killed worker may have left.

    If that worker even held the lock, optuna takes it from the dead after 30 seconds.
    """

    def __init__(self, path: Path):
        super().__init__(str(path))
        self.path = path

    def acquire(self) -> bool:
        taken, text = super().acquire(), self.path.read_bytes()
        if not text.endswith(b"\n"):
            os.truncate(self.path, text.rfind(b"\n") + 1)
        return taken


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a file; the system takes it back when this process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_held(path: Path) -> bool:
    if not path.exists():
        return False
    with open(path, "ab") as file, contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    return True


class Sweep:
    """The trials of a sweep and their folder. Each has a `cell`, the name of what is tried; a cell needs one result."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.folder = args, args.out / "runs" / "sweeps" / args.name
        self.cells: dict[str, dict[str, Any]] = {f"trial_{i}": {} for i in range(args.trials)}
        if args.presets:
            seeds = range(args.seed, args.seed + args.seeds)
            self.cells = {f"{p}_seed_{s}": {"preset": p, "seed": s} for p in args.presets for s in seeds}
        with self.lock("queue"):  # two workers must not make the same tables
            self.study = self._open(args.storage or str(self.folder / "journal.log"))
        asked = {key: value for key, value in vars(args).items() if key not in FREE}
        begun = self.study.user_attrs.get("asked") or asked
        for key, value in asked.items():
            if begun.get(key) != value:
                raise UserError(f"the sweep {args.name!r} was begun with {key} {begun.get(key)}, not {value}: "
                                "say the same, or give this one another --name")  # fmt: skip
        if "asked" not in self.study.user_attrs:
            self.study.set_user_attr("asked", asked)

    def lock(self, name: str) -> contextlib.AbstractContextManager[None]:
        return held(self.folder / "locks" / name)

    def _open(self, where: str) -> optuna.Study:
        try:
            if "://" in where:
                patience = {"connect_args": {"timeout": 60}} if where.startswith("sqlite") else {"pool_pre_ping": True}
                storage = RDBStorage(where, engine_kwargs=patience)
            else:
                path = Path(where).absolute()
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.exists() and path.read_bytes()[:1] not in (b"", b"{"):
                    raise ValueError(f"{where!r} is no journal (a database is given by its URL, sqlite:///{where})")
                storage = JournalStorage(JournalFileBackend(str(path), Lock(path)))
            return optuna.create_study(
                storage=storage, study_name=self.args.name, direction="minimize", load_if_exists=True
            )
        except OSError:  # the system's own sentence is clear
            raise
        except Exception as error:  # optuna, SQLAlchemy and every driver have their own
            raise UserError(f"--storage cannot be opened: {str(error).strip().splitlines()[0]}") from None

    def claim(self) -> optuna.Trial | None:
        """The next trial, from now on this worker's alone; None if there is none left."""
        with self.lock("queue"):  # or the workers of this machine would queue everything twice
            for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
                if self._is_dead(trial):
                    self.give_back(trial.number)
            latest = self.latest()
            for cell, attrs in self.cells.items():
                if cell not in latest or not is_live(latest[cell]):  # again, with the settings that were drawn for it
                    params = latest[cell].params if cell in latest else {}
                    self.study.enqueue_trial(params, user_attrs={"cell": cell, **attrs})
            while self.study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
                trial = self.study.ask()
                cell = trial.user_attrs.get("cell")
                if cell and self.latest()[cell].number == trial.number:
                    return trial
                self.give_back(trial.number)  # another machine queued the cell too, or was quicker

    def latest(self) -> dict[str, FrozenTrial]:
        """Of each cell the trial that counts: the first that is live, otherwise the last that was tried."""
        found: dict[str, FrozenTrial] = {}
        for trial in self.study.get_trials(deepcopy=False):
            cell = trial.user_attrs.get("cell")
            if cell and not (cell in found and is_live(found[cell])):
                found[cell] = trial
        return found

    def give_back(self, trial: int) -> None:
        """End a trial that has no result; its cell is queued again by whoever looks for work next."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        attrs, path = trial.user_attrs, self.folder / "locks" / trial.user_attrs.get("cell", "none")
        silent = time.time() - attrs.get("beat", trial.datetime_start.timestamp()) > GRACE
        return not is_held(path) and (silent or (path.exists() and attrs.get("host") == socket.gethostname()))

    @contextlib.contextmanager
    def owned(self, trial: optuna.Trial) -> Iterator[None]:
        """Let the others see that the worker of this trial lives, and give the trial back if it gets no result."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT):
                with contextlib.suppress(Exception):  # a database may be away for a minute
                    trial.set_user_attr("beat", time.time())

        with self.lock(trial.user_attrs["cell"]):
            try:
                trial.set_user_attr("beat", time.time())
                trial.set_user_attr("host", socket.gethostname())
                threading.Thread(target=beat, daemon=True).start()
                yield
            finally:
                over.set()
                self.give_back(trial.number)


def is_live(trial: FrozenTrial) -> bool:
    """Whether a trial has a result, may still get one, or failed for a reason that would not go away."""
    return trial.state != TrialState.FAIL or "error" in trial.user_attrs
