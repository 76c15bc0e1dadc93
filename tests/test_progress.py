"""Progress is a bar on a terminal, a line now and then in a log, and never an error."""

import io
import sys

import pytest

from diffusion.laboratory import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when they are told to."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_half_minute(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    with progress.progress_bar(200, "training", initial=100) as bar:
        for _ in range(100):
            clock[0] += 1
            bar.set_postfix(loss="0.5")
            bar.update(1)
    lines = log.getvalue().splitlines()
    assert lines[0] == "training: 130 of 200 steps, 70 s left, loss 0.5" and len(lines) == 3


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert list(progress.track([1, 2, 3], "looking")) == [1, 2, 3]
    assert "looking" in terminal.getvalue() and "3" in terminal.getvalue()


@pytest.mark.parametrize("show", [True, False])
def test_without_a_place_to_write_nothing_is_said(monkeypatch, clock, show):
    monkeypatch.setattr(sys, "stderr", None)
    with progress.progress_bar(None, "training", show=show) as bar:
        clock[0] += 60
        bar.update(5)
    assert list(progress.track(range(2), "looking", show=show)) == [0, 1]
