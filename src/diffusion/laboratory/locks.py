"""Files that one process holds."""

import atexit
import os
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

HELD: dict[Path, IO] = {}  # locked files, open as long as this process lives


def hold(path: Path) -> bool:
    """Whether this process, from now to its end, is the only one to hold that file, which is there only as long."""
    path = path.resolve()
    if path in HELD or fcntl is None:
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "w")  # noqa: SIM115 (it is closed by the end of the process, whatever that is)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return False
    if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
        file.close()  # its last holder has just taken it away
        return hold(path)
    HELD[path] = file
    atexit.register(path.unlink, missing_ok=True)
    return True
