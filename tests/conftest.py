"""One thread a process, set before torch is imported: several torch processes on few cores hold each other up."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
