"""Commands run in the process of the tests: starting Python and torch for each of them would take most of the time."""

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ("--data-root", str(ROOT / "data"))  # of all tests the same, so that they share what is cached there


class Death(BaseException):
    """Ends a command as a kill would: nothing is saved any more."""


def run(script: str, *words: object) -> subprocess.CompletedProcess:
    """`python script words…`: its exit code and what it said. The signal handlers that it sets are taken back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    argv, sys.argv = sys.argv, [script, *map(str, words)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(os.path.relpath(ROOT / script), run_name="__main__")  # sets sys.argv[0], too
    except SystemExit as left:
        code = left.code
    finally:
        sys.argv = argv
        for number, handler in before.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess([script, *words], code, out.getvalue(), err.getvalue())


def files_in(folder: Path) -> set[str]:
    """The names below a folder, without the lock that is there as long as the process: here, that of the tests."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)) for path in paths}
