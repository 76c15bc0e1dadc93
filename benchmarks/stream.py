"""What it costs a training to take its batches from a server or from shards instead of from memory.

  OMP_NUM_THREADS=1 python benchmarks/stream.py --dataset MNIST --batch-size 64

The server is a process of its own on this machine. CPU is of the process that trains; the clock also sees what others
do.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from diffusion.data.batches import batches
from diffusion.data.sources import load
from diffusion.streaming import shards
from diffusion.streaming.source import Stream

BLOCKS = 5  # the median of so many is shown


def measured(stream: Iterator, steps: int, size: int) -> str:
    """Milliseconds of CPU a batch, and samples a second by the clock."""
    list(islice(stream, 3))
    cpu, wall = [], []
    for _ in range(BLOCKS):
        began = time.process_time(), time.perf_counter()
        list(islice(stream, steps))
        cpu.append(time.process_time() - began[0])
        wall.append(time.perf_counter() - began[1])
    per_second = steps * size / statistics.median(wall)
    return f"{1000 * statistics.median(cpu) / steps:>12.3f}{per_second:>16,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="MNIST")
    parser.add_argument("--samples", type=int, help="of a data set that is drawn")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200, help="batches of a block, of which shards have a tenth")
    parser.add_argument("--data-root", default="data")
    args = parser.parse_args()
    near = load(args.dataset, "train", args.data_root, samples=args.samples)
    print(f"{args.dataset}, {len(near):,} samples of {tuple(near.images.shape[1:])}, batches of {args.batch_size}")
    print(f"{'':<10}{'ms CPU':>12}{'samples/s':>16}")
    print(f"{'memory':<10}{measured(batches(near, args.batch_size, 0), args.steps, args.batch_size)}", flush=True)

    words = ["--dataset", args.dataset, "--port", "0", "--data-root", args.data_root]
    words += ["--samples", str(args.samples)] if args.samples else []
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, "src", "stream", *words], **quiet) as server:
        address = next(re.search(r"ws://[\d.:]+", line)[0] for line in server.stdout if "serving at" in line)
        far = Stream(address).load(args.dataset, "train")
        print(f"{'stream':<10}{measured(batches(far, args.batch_size, 0), args.steps, args.batch_size)}", flush=True)
        server.terminate()

    with tempfile.TemporaryDirectory() as folder:
        list(shards.write({"train": near}, Path(folder) / args.dataset, 16))
        far = Stream(folder).load(args.dataset, "train")
        print(f"{'shards':<10}{measured(batches(far, args.batch_size, 0), args.steps // 10, args.batch_size)}")


if __name__ == "__main__":
    main()
