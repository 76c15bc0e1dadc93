"""SIGINT, SIGTERM and SIGHUP end a command in good order."""

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
