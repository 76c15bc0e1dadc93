"""The floors of the report: what real test images score in the numbers that other benchmarks draw.

python benchmarks/floors.py --out Report/results/floors.jsonl

N images are the first of the file, or drawn from all of it: MNIST's test file is not in random order.
"""

import argparse
import json
from pathlib import Path

import torch

from diffusion.data.datasets import load
from diffusion.metrics.features import extractor_for
from diffusion.metrics.scores import Reference, floor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[1024, 2000, 10_000])
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_floors.jsonl"))
    args = parser.parse_args()
    data, test = (load("MNIST", split, args.data_root) for split in ("train", "test"))
    extractor = extractor_for("MNIST", Path(__file__).parents[1] / "weights")
    reference = Reference.of(extractor, data.images, args.data_root / "cache")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with open(args.out, "w") as file:
        for which, some in {"first": test, "drawn": test.shuffled()}.items():
            for n in args.samples:
                shares = torch.bincount(some.labels[:n], minlength=10) / n
                record = {"which": which, **floor(some.images, reference, n)._asdict(), "labels": shares.tolist()}
                file.write(json.dumps(record) + "\n")
                print(f"{which} {n:,}: FID {record['fid']:.3f}", flush=True)


if __name__ == "__main__":
    main()
