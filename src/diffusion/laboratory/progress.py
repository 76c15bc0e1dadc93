"""How far a loop is: a bar on a terminal, a plain line every half minute in a log file or a pipe."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from tqdm import tqdm

EVERY = 30  # seconds between two lines


class Lines(AbstractContextManager):
    """As much of tqdm as is used here, for output that nobody watches."""

    def __init__(self, total: float | None, text: str, unit: str, initial: int = 0):
        self.total, self.text, self.unit, self.initial, self.n, self.loss = total, text, unit, initial, initial, ""
        self.began = self.printed = time.monotonic()

    def update(self, n: int = 1) -> None:
        self.n += n
        now = time.monotonic()
        if now - self.printed >= EVERY and sys.stderr:
            self.printed = now
            rate = (self.n - self.initial) / (now - self.began)
            left = f", {(self.total - self.n) / rate:.0f} s left" if self.total and rate else ""
            of = f" of {self.total:,}" if self.total else ""
            print(f"{self.text}: {self.n:,}{of} {self.unit}s{left}{self.loss}", file=sys.stderr, flush=True)

    def set_postfix(self, loss: str, refresh: bool = True) -> None:
        self.loss = f", loss {loss}"

    def __exit__(self, *error: object) -> None:
        pass


def progress_bar(total: float, text: str, unit: str = "step", initial: int = 0, show: bool = True) -> Any:
    """A tqdm bar or `Lines`, to be updated and closed by `with`; neither says anything unless `show`."""
    known = None if total == math.inf else total
    if show and sys.stderr and sys.stderr.isatty():
        return tqdm(total=known, desc=text, unit=unit, initial=initial, leave=False, dynamic_ncols=True)
    return Lines(known, text, unit, initial) if show else tqdm(disable=True)


def track(parts: Iterable[Any], text: str, unit: str = "part", show: bool = True) -> Iterator[Any]:
    """Pass the parts on, moving a bar."""
    parts = list(parts)
    with progress_bar(len(parts), text, unit, show=show) as bar:
        for part in parts:
            yield part
            bar.update(1)
