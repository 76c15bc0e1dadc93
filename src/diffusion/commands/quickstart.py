"""Draw digits with shipped weights, then train a model for two minutes and watch it learn to draw its own."""

import argparse
import time

import torch

from diffusion import figures
from diffusion.api.model import load
from diffusion.experiment.presets import GUIDED
from diffusion.experiment.recipe import Plan
from diffusion.experiment.samplers import SamplingOptions
from diffusion.laboratory.device import open_device
from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.judge import Judge
from diffusion.laboratory.options import Parser, number
from diffusion.laboratory.run import Run
from diffusion.laboratory.settings import RunOptions, ScoreOptions
from diffusion.laboratory.show import draw, report
from diffusion.laboratory.stopping import stoppable

NAME = "quickstart"
CONFIG = GUIDED["unet_fast"].replace(preset=NAME, hidden=(32, 64))  # small: two minutes must do on an old laptop
SAMPLING = SamplingOptions("sde", 10, guidance_scale=2.0)
SHEETS = tuple(25 * 2**i for i in range(12))  # steps after which samples are drawn: 25, 50, 100, 200, …
ROW = "{:<24}{:>8}{:>8}{:>18}{:>12}".format


def parser() -> Parser:
    p = Parser(prog="python src quickstart", description=__doc__)
    p.add_argument("--minutes", type=number(float, 1e-3), default=2.0, help="of training")
    add_flags(p, "seed", "out", "data-root", "device", "resume", "limit-steps", "save-every")
    add_flags(p, "eval-samples", eval_samples={"default": 1000})
    return p


@stoppable
def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    draw_shipped(args)

    # --- Train ---
    run = Run(CONFIG, RunOptions.of(args), NAME, f"{NAME}.pth")
    judge, rows = Judge(run, ScoreOptions.of(args)), []
    run.say(f"training {args.minutes:g} minutes on {len(run.data):,} images of {run.config.dataset}")
    for step in run.marks(Plan(minutes=args.minutes, sheet_steps=SHEETS, sheet_every=10**9)):
        # --- Sample ---
        sheet = run.gather(run.sample(50, args.seed, f"samples after step {step}", SAMPLING))
        rows.append(sheet[:10])  # of the same noise every time
        draw(run, figures.grid, torch.cat(rows), name=f"contents/{NAME}_learning.png", columns=10)
        draw(run, figures.grid, sheet, name=f"contents/{NAME}_trained.png", columns=10)
        run.record(step / run.trainer.steps_per_epoch)

    # --- Measure ---
    table = measure(run, judge, args.eval_samples, args.seed)
    losses, title = run.trainer.losses, f"{NAME}, {run.config.dataset}"
    draw(run, figures.losses, losses, run.trainer.steps_per_epoch, title=title, name=f"Plots/losses_for_{NAME}.png")
    explained = f"{NAME}_learning.png: a row after {', '.join(map(str, [0, *SHEETS[:2]]))}, … steps, of the same noise"
    report(run, f"{table}\n{explained}; {NAME}_trained.png: the end")


def draw_shipped(args: argparse.Namespace) -> None:
    """A sheet of digits before anything is trained."""
    began, path = time.monotonic(), args.out / f"contents/{NAME}_shipped.png"
    images = load("unet", open_device(args.device)).sample(100, seed=args.seed, steps=10)
    figures.grid(images.cpu(), path, columns=10)
    print(f"{path}: 100 uncurated digits from the shipped weights, in {time.monotonic() - began:.0f} s", flush=True)


def measure(run: Run, judge: Judge, count: int, seed: int) -> str:
    """The table: scores of `count` samples beside those of real test images, and how fast they were drawn."""
    labels, began = run.data.stratified(count, seed).labels, time.monotonic()
    images = run.sample(count, seed, "samples to score", SAMPLING, labels=labels)
    rate, scores, floor = count / (time.monotonic() - began), judge.score(images), judge.floor
    trained = f"{scores.fid:.2f}", f"{floor.fid:.2f}", f"{judge.agreement(images, labels):.1%}", f"{rate:.0f}"
    how = f"N = {count:,}, {SAMPLING.steps} NFE a sample, guidance scale {SAMPLING.guidance_scale:g}; floor: the FID of"
    how += f" as many real test images\nfeatures: {scores.extractor}, sha256 {scores.sha256[:16]}"
    head = ROW("", "FID", "floor", "label agreement", "images/s")
    return f"{head}\n{ROW(f'after {run.trainer.step:,} steps', *trained)}\n{how}"
