"""SIGINT and SIGTERM end a command in good order, with the words that continue it."""

import functools
import os
import shlex
import signal
import sys
from collections.abc import Callable

from diffusion.laboratory.launch import launched_by


class Stopped(Exception):
    """SIGINT or SIGTERM came, and everything is saved."""

    def __init__(self, number: int):
        self.number = number


def on_stop(handler: Callable[[int], object]) -> None:
    """From now on call it with the number of SIGINT, SIGTERM or SIGHUP, instead of dying of them."""
    stops = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup's wish
        stops.append(signal.SIGHUP)
    for each in stops:
        signal.signal(each, lambda number, frame: handler(number))


def stoppable(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """Make a main answer SIGINT and SIGTERM with the command that continues, and the signal's exit code."""

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int | None:
        try:
            return main(argv)
        except Stopped as stopped:
            if os.environ.get("RANK", "0") == "0":
                command = shlex.join([*launched_by(), *sys.argv, *([] if "--resume" in sys.argv else ["--resume"])])
                name = signal.Signals(stopped.number).name
                print(f"\nstopped by {name}; the state is saved. Continue with\n  {command}")
            return 128 + stopped.number

    return wrapped
