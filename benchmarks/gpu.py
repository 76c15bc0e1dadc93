"""Training and sampling on one GPU: ours against diffusers in its best form, beside the chip's own limits, in one run.

  pip install -r requirements.txt -r benchmarks/requirements.txt
  python benchmarks/gpu.py --out gpu.json                            on a GPU, two to three minutes
  python benchmarks/gpu.py --out cpu.json --batch-size 4 --steps 2   on a CPU: whether it runs

A row that is in the file already is not measured again, so a run that was stopped goes on. diffusers' best form here:
data in the device's memory, bfloat16 autocast, channels last, fused AdamW, compiled with CUDA graphs. `default` has no
network of diffusers' to race: there it is our network in diffusers' loop. Networks of `unet` have equally many
parameters, within 1 %. The share is of the large matrix product's rate, by torch's count of operations (backward twice
the forward).
"""

import argparse
import json
import statistics
import time
from collections import deque
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import peers
import torch
from torch.nn import functional as F

from diffusion import files
from diffusion.api.generation import trajectory
from diffusion.data.datasets import load
from diffusion.experiment.build import build
from diffusion.experiment.presets import PRESETS
from diffusion.experiment.samplers import SamplingOptions
from diffusion.laboratory.device import open_device
from diffusion.training.graph import Graphed
from diffusion.training.trainer import Trainer

CALLS = 20


def rate(work, args, operations):
    """Operations a second: the median of five timings of `args.steps` calls."""
    work()
    blocks = [peers.seconds(lambda: [work() for _ in range(args.steps)], args.device) for _ in range(5)]
    return operations * args.steps / statistics.median(blocks)


# --- Limits ---


def matrix_product(args):
    n = 8192 if args.device.type == "cuda" else 512
    a, b = (torch.randn(n, n, device=args.device, dtype=torch.bfloat16) for _ in range(2))
    return {"TFLOP/s": rate(lambda: a @ b, args, 2 * n**3) / 1e12}


def convolution(args):
    """The largest convolution of `unet`'s upper half."""
    n = args.batch_size * 8
    x = torch.randn(n, 64, 14, 14, device=args.device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    w = torch.randn(64, 64, 3, 3, device=args.device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    return {"TFLOP/s": rate(lambda: F.conv2d(x, w, padding=1), args, 2 * n * 64 * 64 * 9 * 14 * 14) / 1e12}


# --- Training ---


def timed(steps, operations, args):
    """Steps a second of a generator of steps, after a warm-up that compiles."""
    began = time.perf_counter()
    deque(islice(steps, 30), maxlen=0)
    warm = time.perf_counter() - began
    blocks = []
    for _ in range(5):
        blocks.append(peers.seconds(lambda: deque(islice(steps, args.steps), maxlen=0), args.device) / args.steps)
    second = statistics.median(blocks)
    rates = {"steps/s": 1, "images/s": args.batch_size, "TFLOP/s": 3 * operations * args.batch_size / 1e12}
    return {name: amount / second for name, amount in rates.items()} | {"warm-up": warm}


def forward_flops(network, args, *cond):
    x, t = torch.zeros(1, 1, 28, 28, device=args.device), torch.zeros(1, device=args.device)
    return peers.flops(network, x, t, *(each[:1].to(args.device) for each in cond))


def our_training(preset, args, graph=True):
    config = PRESETS[preset].replace(batch_size=args.batch_size, precision="bf16")
    e, data = build(config).to(args.device), load("MNIST", "train", args.data_root, args.device)
    flops = forward_flops(e.denoiser.network, args, *([data.labels] if config.classes else []))
    trainer = Trainer(e, data)
    if not graph:
        trainer.optimize = trainer._optimize
    return timed(trainer.train(10**9), flops, args)


def diffusers_training(model, flops, call, args):
    model = model.to(args.device).to(memory_format=torch.channels_last).train()
    model.compile(mode="reduce-overhead")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    degrade, data = peers.noised(), load("MNIST", "train", args.data_root, args.device)

    def steps():
        while True:
            for batch in torch.randperm(len(data), device=args.device).split(args.batch_size)[:-1]:
                x = data.images[batch].float() / 127.5 - 1
                x_t, t, noise = degrade(x)
                with torch.autocast(args.device.type, torch.bfloat16):
                    loss = F.mse_loss(call(model, x_t, t, data.labels[batch]).float(), noise)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                yield loss

    return timed(steps(), flops, args)


def diffusers_unet(args):
    model = peers.unet2d(peers.WIDTHS["unet"]).to(args.device)
    zero = torch.zeros(1, device=args.device).long()
    flops = peers.flops(model, torch.zeros(1, 1, 28, 28, device=args.device), zero, zero)
    return diffusers_training(model, flops, lambda model, x, t, labels: model(x, t, labels).sample, args)


def diffusers_default(args):
    model = build(PRESETS["default"]).denoiser.network.to(args.device)
    flops = forward_flops(model, args)
    return diffusers_training(model, flops, lambda model, x, t, labels: model(x, t / 1000), args)


# --- Sampling ---


def sampled(draw, args):
    began = time.perf_counter()
    draw()
    warm = time.perf_counter() - began
    second = statistics.median(peers.seconds(draw, args.device) for _ in range(5))
    return {"images/s": args.draw / second, "warm-up": warm}


def our_sampling(args, compiled=True, mode=None):
    e = build(PRESETS["unet"].replace(precision="bf16")).to(args.device)
    if compiled:
        e.denoiser.network.compile(mode=mode)
    index = torch.arange(args.draw, device=args.device)
    return sampled(lambda: deque(trajectory(e, index, SamplingOptions("ddim", CALLS)), maxlen=0), args)


@torch.no_grad()
def diffusers_sampling(args, compiled=False):
    model = peers.unet2d(peers.WIDTHS["unet"]).to(args.device).to(memory_format=torch.channels_last).eval()
    if compiled:
        model.compile(mode="reduce-overhead")
    labels, steps = torch.arange(args.draw, device=args.device) % 10, peers.scheduler("ddim", CALLS)

    def forward(x, t, labels):
        with torch.autocast(args.device.type, torch.bfloat16, cache_enabled=False):
            return model(x, t, labels).sample

    graphed = Graphed(forward) if args.device.type == "cuda" and not compiled else forward
    call = lambda x, t, labels: SimpleNamespace(sample=graphed(x, t.to(x.device).expand(len(x)), labels))
    return sampled(lambda: peers.draw(call, steps, labels), args)


ROWS = {
    "matrix product, bf16": matrix_product,
    "3×3 convolution, bf16": convolution,
    "training unet, ours": lambda args: our_training("unet", args),
    "training unet, ours, no graph": lambda args: our_training("unet", args, graph=False),
    "training like unet, diffusers": diffusers_unet,
    "training default, ours": lambda args: our_training("default", args),
    "training default, diffusers' loop": diffusers_default,
    "sampling unet, ours, eager": lambda args: our_sampling(args, compiled=False),
    "sampling unet, ours": our_sampling,
    "sampling unet, ours, graphs": lambda args: our_sampling(args, mode="reduce-overhead"),
    "sampling like unet, diffusers, graph": diffusers_sampling,
    "sampling like unet, diffusers, compiled": lambda args: diffusers_sampling(args, compiled=True),
}


COLUMNS = {"steps/s": ",.1f", "images/s": ",.0f", "TFLOP/s": ".1f", "share": ".1%", "warm-up": ".1f"}


def table(done):
    limit = done.get("matrix product, bf16", {}).get("TFLOP/s")
    print(f"\n{'':<38}" + "".join(f"{name:>11}" for name in COLUMNS))
    for name, row in done.items():
        if limit and "TFLOP/s" in row:
            row = row | {"share": row["TFLOP/s"] / limit}
        cells = [format(row[key], form) if key in row else "" for key, form in COLUMNS.items()]
        print(f"{name:<38}" + "".join(f"{cell:>11}" for cell in cells) + row.get("error", ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="rows measured so far")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name contains one of these")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--draw", type=int, default=1024, help="images drawn at a time")
    parser.add_argument("--steps", type=int, default=100, help="steps of each of five timings")
    parser.add_argument("--data-root", default="data")
    args = parser.parse_args()
    args.device = open_device("auto")
    where = torch.cuda.get_device_name() if args.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}; batches of {args.batch_size}; {args.draw} samples at a time")
    done = {}
    with suppress(OSError):
        done = json.loads(args.out.read_text())
    for name, measure in ROWS.items():
        if name in done or not any(part in name for part in args.only):
            continue
        try:
            done[name] = measure(args)
        except Exception as error:  # a row that this machine cannot run is told, and the others are measured
            done[name] = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"[:300]}
        print(name, done[name], flush=True)
        files.write_atomically(args.out, lambda file: file.write(json.dumps(done, indent=1).encode()))
    table(done)


if __name__ == "__main__":
    main()
