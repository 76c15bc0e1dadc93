"""The folder of a run: its config, its state and its history, whole at every moment, and written by one process."""

import atexit
import errno
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from diffusion import files
from diffusion.errors import UserError
from diffusion.experiment.config import Config, checked

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # what a file system without them answers
LOCKS: dict[Path, FileLock] = {}  # held as long as this process lives


class Folder:
    """config.json, state.pt and metrics.jsonl. Of several processes only the main one may change it."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def files(self) -> list[Path]:
        return [self.path / name for name in ("state.pt", "metrics.jsonl", "config.json")]

    def config(self) -> Config | None:
        """What the run was begun with, if it was; UserError if that is damaged."""
        path = self.path / "config.json"
        if not path.exists():
            return None
        try:
            return checked(json.loads(path.read_bytes()))
        except ValueError as error:  # a UserError, too
            reason = f", {error}" if isinstance(error, UserError) else ""
            raise UserError(f"{str(path)!r} is damaged{reason}: start anew without --resume") from None

    def take(self) -> None:
        """Become the only one who writes here, until this process ends; UserError if another is."""
        path = self.path.with_name(f".{self.path.name}.lock").resolve()
        try:
            LOCKS.setdefault(path, FileLock(path, fallback_to_soft=False)).acquire(blocking=False)
        except Timeout:
            who = f"another process is training in {str(self.path)!r}"
            raise UserError(f"{who}: wait, or choose another --out") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(f"there are no locks in {str(path.parent)!r}: do not start the same run twice", flush=True)
        atexit.register(path.unlink, missing_ok=True)
        for stale in self.path.glob(".*.tmp"):  # of a save that was killed
            stale.unlink()

    def begin(self, config: Config) -> None:
        """Put an earlier run aside, and note what this one is."""
        if (self.path / "state.pt").exists() or any(self.path.glob("*.pth")):
            aside = files.put_aside(self.path)
            print(f"the earlier run is kept in {aside}; its pictures give way to the new run's")
        self._write("config.json", json.dumps(asdict(config), indent=2) + "\n")

    def state(self) -> dict[str, Any] | None:
        """The last one saved, if there is one."""
        path = self.path / "state.pt"
        return files.load(path) if path.exists() else None

    def save(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        files.save(self.path / "state.pt", state)
        self._write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in history))

    def _write(self, name: str, text: str) -> None:
        files.write_atomically(self.path / name, lambda file: file.write(text.encode()))
