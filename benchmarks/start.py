"""What commands cost before they do anything: seconds from nothing, and how many times `import torch` that is.

  python benchmarks/start.py                              five rounds; each starts every command once, torch first
  python benchmarks/start.py --against ../older_checkout  another checkout's commands in the same rounds

A busy machine stretches all of them: the ratios are of processor time (user and system) within a round.
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
    "generate --weights unet --count 1": ("src", "generate", "--weights", "unet", "--count", "1", "--out", "{out}"),
    "--help": ("src", "--help"),
    "generate --help": ("src", "generate", "--help"),
    "train --help": ("src", "train", "--help"),
    "serve --help": ("src", "serve", "--help"),
    "part_1.py --help": ("src/part_1.py", "--help"),
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


def measure(folders, rounds, out):
    """Yield name, checkout, and the costs of the command and of torch in every round."""
    cases = [(name, folder) for folder in folders for name in COMMANDS]
    words = {name: [word.format(out=out) for word in command] for name, command in COMMANDS.items()}
    for name, folder in [*cases, (None, ROOT)]:  # the first start compiles, and reads from the disk
        start(words.get(name, TORCH), folder)
    torch, costs = [], {case: [] for case in cases}
    for i in range(rounds):
        print(f"round {i + 1} of {rounds}", file=sys.stderr, flush=True)
        torch.append(start(TORCH, ROOT))
        for name, folder in cases:
            costs[name, folder].append(start(words[name], folder))
    yield "import torch", ROOT, torch, torch
    for (name, folder), found in costs.items():
        yield name, folder, found, torch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="medians over so many (default: 5)")
    parser.add_argument("--against", type=Path, help="the folder of another checkout")
    parser.add_argument("--record", type=Path, help="append the lines to this file, one JSON object each")
    args = parser.parse_args()
    folders = [ROOT, *([args.against.resolve()] if args.against else [])]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"{machine}; medians over {args.rounds} rounds\n")
    print(f"{'command':<36}{'checkout':<12}{'seconds':>9}{'of processor':>14}{'× import torch':>16}")
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for name, checkout, costs, torch in measure(folders, args.rounds, f"{folder}/sample.png"):
            seconds, cpu = (statistics.median(column) for column in zip(*costs))
            ratio = statistics.median(cost.cpu / base.cpu for cost, base in zip(costs, torch))
            which = "this" if checkout == ROOT else "other"
            print(f"{name:<36}{which:<12}{seconds:>9.2f}{cpu:>14.2f}{ratio:>16.2f}", flush=True)
            records.append({"command": name, "checkout": which, "seconds": seconds, "cpu": cpu, "ratio": ratio})
    if args.record:
        about = {"rounds": args.rounds, "machine": machine}
        with open(args.record, "a") as file:
            file.writelines(json.dumps(record | about) + "\n" for record in records)
        print(f"\nappended to {args.record}")


if __name__ == "__main__":
    main()
