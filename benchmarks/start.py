"""What commands cost before they do anything: seconds from nothing, and how many times `import torch` that is.

  python benchmarks/start.py                              five rounds; each starts every command once, torch first
  python benchmarks/start.py --against ../older_checkout  another checkout's commands in the same rounds

Ctrl-C ends it after the rounds that are whole. A busy machine stretches all of them: the ratios are of processor time
(user and system) within a round. Say OMP_NUM_THREADS=1 there, or threads that wait for each other are counted, too.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TORCH = ("-c", "import torch")
COMMANDS = {
    "sample": ("src", "generate", "--weights", "unet", "--count", "1"),
    "modes": ("src", "--help"),
    "generate": ("src", "generate", "--help"),
    "train": ("src", "train", "--help"),
    "serve": ("src", "serve", "--help"),
    "part_1": ("src/part_1.py", "--help"),
}


class Cost(NamedTuple):
    """Of one start: seconds on the clock, and seconds of the processor."""

    seconds: float
    cpu: float


def start(words, folder):
    """The cost of a Python with these words, in the folder of a checkout; it may keep its compiled files."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], cwd=folder, env=env, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds, process.returncode = time.perf_counter() - began, os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"python {' '.join(words)} in {folder} ended with {process.returncode}")
    return Cost(seconds, used.ru_utime + used.ru_stime)


def measure(cases, rounds):
    """The costs of every case (words, folder), by round; fewer rounds after Ctrl-C."""
    for case in cases:  # the first start compiles, and reads from the disk
        start(*case)
    found = []
    try:
        for i in range(rounds):
            print(f"round {i + 1} of {rounds}", file=sys.stderr, flush=True)
            found.append([start(*case) for case in cases])
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="medians over so many (default: 5)")
    parser.add_argument("--against", type=Path, help="the folder of another checkout")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="only these")
    parser.add_argument("--record", type=Path, help="append the lines to this file, one JSON object each")
    args = parser.parse_args()
    folders = {"this": ROOT} | ({"other": args.against.resolve()} if args.against else {})
    names = [("torch", "this"), *((name, which) for which in folders for name in args.commands)]
    with tempfile.TemporaryDirectory() as out:
        more = {"sample": ("--out", f"{out}/x.png")}
        words = {"torch": TORCH} | {name: (*each, *more.get(name, ())) for name, each in COMMANDS.items()}
        found = measure([(words[name], folders[which]) for name, which in names], args.rounds)
    if not found:
        raise SystemExit("no round is whole")
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    machine = f"{os.cpu_count()} cores, threads: {threads}, {platform.machine()}, Python {platform.python_version()}"
    print(f"{machine}; medians over {len(found)} rounds\n")
    print(f"{'command':<48}{'checkout':<10}{'seconds':>9}{'of processor':>14}{'× import torch':>16}")
    records = []
    for (name, which), costs in zip(names, zip(*found)):
        seconds, cpu = (statistics.median(column) for column in zip(*costs))
        ratio = statistics.median(cost.cpu / each[0].cpu for cost, each in zip(costs, found))
        command = "import torch" if name == "torch" else " ".join(("python", *COMMANDS[name]))
        print(f"{command:<48}{which:<10}{seconds:>9.2f}{cpu:>14.2f}{ratio:>16.2f}")
        about = {"rounds": len(found), "machine": machine}
        records.append({"command": command, "checkout": which, "seconds": seconds, "cpu": cpu, "ratio": ratio} | about)
    if args.record:
        with open(args.record, "a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        print(f"\nappended to {args.record}")


if __name__ == "__main__":
    main()
