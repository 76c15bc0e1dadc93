"""Digits of shipped weights, and two minutes of training."""

import time
from argparse import Namespace

import torch

from diffusion import figures
from diffusion.api.model import load
from diffusion.experiment.presets import GUIDED
from diffusion.experiment.recipe import Plan
from diffusion.experiment.samplers import SamplingOptions
from diffusion.laboratory.device import open_device
from diffusion.laboratory.judge import Judge, open_run
from diffusion.laboratory.show import draw_curves, draw_grid, report, row

NAME = "quickstart"
CONFIG = GUIDED["unet_fast"].replace(preset=NAME, hidden=(32, 64))  # small: two minutes must do on an old laptop
SAMPLING = SamplingOptions("sde", 10, guidance_scale=2.0)
SHEETS = tuple(25 * 2**i for i in range(12))  # steps after which samples are drawn: 25, 50, 100, 200, …


def main(args: Namespace) -> None:
    # --- Draw with shipped weights ---
    began = time.monotonic()
    model = load("unet", open_device(args.device))
    images = model.sample(100, seed=args.seed or 0, steps=10)
    path = figures.grid(images.cpu(), args.out / f"contents/{NAME}_shipped.png", columns=10)
    seconds = time.monotonic() - began
    print(f"{path}: 100 uncurated digits from {model.experiment.origin}, in {seconds:.0f} s", flush=True)

    # --- Train ---
    run, judge = open_run(args, CONFIG, NAME, f"{NAME}.pth", SAMPLING)
    run.say(f"training {args.minutes:g} minutes on {len(run.data):,} images of {run.config.dataset}")
    rows: dict[int, torch.Tensor] = {}  # step -> ten samples, of the same noise every time
    for step in run.steps(Plan(minutes=args.minutes, sheet_steps=SHEETS, sheet_every=10**9)):
        # --- Sample ---
        sheet = run.sample(50, run.config.seed, f"samples after step {step}", SAMPLING)
        rows[step] = sheet[:10]
        draw_grid(run, torch.cat([*rows.values()]), f"contents/{NAME}_learning.png", columns=10)
        draw_grid(run, sheet, f"contents/{NAME}_trained.png", columns=10)
        run.record(step / run.trainer.steps_per_epoch)

    # --- Measure ---
    measured = measure(judge, run.config.seed)
    draw_curves(judge)
    after = ", ".join(map(str, rows))
    explained = f"\nrows of {NAME}_learning.png: after {after} steps, of the same noise" if rows else ""
    report(run, f"{measured}{explained}")


def measure(judge: Judge, seed: int) -> str:
    """The table: scores of samples beside those of real test images, and how fast they were drawn."""
    labels, real, began = judge.labels(seed), judge.floor, time.monotonic()
    images = judge.sample(seed)
    rate, fid = real.n / (time.monotonic() - began), judge.score(images).fid
    cells = f"{fid:.2f}", f"{real.fid:.2f}", f"{judge.agreement(images, labels):.1%}", f"{rate:.0f}"
    head = row("", "FID", "floor", "label agreement", "samples/s", width=18)
    line = row(f"after {judge.run.trainer.step:,} steps", *cells, width=18)
    how = f"N = {real.n:,}, {SAMPLING.steps} NFE a sample, guidance scale {SAMPLING.guidance_scale:g}"
    floor = f"floor: the FID of as many real test images\nfeatures: {real.extractor}, sha256 {real.sha256[:16]}"
    return f"{head}\n{line}\n{how}; {floor}"
