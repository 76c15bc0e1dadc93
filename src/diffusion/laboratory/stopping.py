"""SIGINT, SIGTERM and SIGHUP end a command in good order."""

import os
import signal
from collections.abc import Callable


class Stopped(Exception):
    """A signal came, and everything is saved."""

    def __init__(self, number: int):
        self.number = number


def on_stop(handler: Callable[[int], object]) -> None:
    """From now on call it with the number of SIGINT, SIGTERM or SIGHUP, instead of dying of them."""
    stops = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup's wish
        stops.append(signal.SIGHUP)
    for each in stops:
        signal.signal(each, lambda number, frame: handler(number))


class importing:
    """Let Ctrl-C end the process at once and without a word: torch takes seconds, and nothing is begun.

    A class, and few imports above it: until it is entered, Python answers with its own traceback.
    """

    def __enter__(self) -> None:
        self.before = signal.getsignal(signal.SIGINT)
        if self.before == signal.default_int_handler:  # a shell ignores it for what runs in the background
            signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self.before)
