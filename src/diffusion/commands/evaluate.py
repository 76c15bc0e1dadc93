"""Score a weight file on many samples: FID, IS, KID, label agreement, precision, recall, and whether it remembers."""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion import figures, files
from diffusion.api.generation import generate, guided_denoiser
from diffusion.api.model import load as load_model
from diffusion.data.datasets import load
from diffusion.errors import UserError
from diffusion.experiment.samplers import build_sampler
from diffusion.laboratory.device import open_device
from diffusion.laboratory.judge import add_feature_options, named_extractor
from diffusion.laboratory.options import Parser, directory, number, one_of
from diffusion.metrics.coverage import coverage, neighbours
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, floor, score

LINE = "{:<22}{:>10}{:>8}{:>9}{:>11}{:>11}{:>8}{:>14}".format
EXAMPLES = """examples:
  python src evaluate --weights unet                                  10,000 samples, 3 seeds: about half an hour of CPU
  python src evaluate --weights unet --sampler dpm --steps 10 --samples 2000 --guidance-scale 2 --interval 0.1 0.8
"""


def parser() -> Parser:
    p = Parser(prog="python src evaluate", description=__doc__, epilog=EXAMPLES)
    p.add_argument("--weights", required=True, help="a weight file, or the name of one in weights/ or runs/*/")
    p.add_argument("--samples", type=number(int, 16), default=10_000, help="of each seed")
    p.add_argument("--seeds", type=number(int, 1), default=3, help="how often all is repeated, for the spread")
    p.add_argument("--seed", type=number(int, 0), default=0, help="the first seed")
    p.add_argument("--sampler", help="see python src generate --help (default: as saved)")
    p.add_argument("--steps", type=number(int, 1), help="of the sampler (default: its usual number)")
    p.add_argument("--guidance-scale", type=number(float, -100, 100), default=1.0, help="1 follows the label")
    p.add_argument("--interval", type=number(float, 0, 1), nargs=2, default=(0.0, 1.0), metavar=("LOW", "HIGH"),
                   help="times that are guided (default: 0 1, all)")  # fmt: skip
    add_feature_options(p)
    p.add_argument("--batch-size", type=number(int, 1), help="samples drawn at a time (default: by device)")
    p.add_argument("--data-root", type=directory, default=Path("data"), help="where data sets are kept")
    p.add_argument("--device", type=one_of("device", ["auto", "cpu", "cuda"]), default="auto", help="auto: GPU if any")
    p.add_argument("--out", type=Path, help="append the numbers to this file, one JSON object a line")
    p.add_argument("--sheet", type=Path, help="X.png: samples, each above the training image nearest to it")
    return p


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    check(args)
    device = open_device(args.device)
    experiment = load_model(args.weights, device).experiment
    dataset = experiment.config.dataset
    how = {"sampler": args.sampler, "steps": args.steps}
    told = {"guidance_scale": args.guidance_scale, "interval": tuple(args.interval)}
    way = build_sampler(experiment, **how)
    calls, steps = way.calls, len(way.times) - 1
    guided_denoiser(experiment, **told)  # a wrong scale is refused now
    eyes = named_extractor(args, dataset, device)
    data = load(dataset, "train", args.data_root, device)
    test = load(dataset, "test", args.data_root, device)
    test = test.stratified(min(args.samples, len(test))) if experiment.config.classes else test.shuffled()
    reference = Reference.of(eyes, data.images, args.data_root / "cache", lambda parts: tqdm(parts, leave=False))
    print(f"{args.weights}: {calls} network calls a sample, guidance scale {args.guidance_scale:g}; "
          f"{args.samples:,} samples a seed against {reference.n:,} training images;\n"
          f"{eyes.name}, sha256 {eyes.sha256[:16]}\n")  # fmt: skip
    print(LINE("", "FID", "IS", "KID", "agreement", "precision", "recall", "labels"))
    some, labels = test.images[: args.samples], test.labels[: args.samples]
    if args.samples > len(some):
        print(f"(there are only {len(some):,} test images: the floor is theirs)")
    real = floor(some, reference)._asdict() | measured(some, labels, reference, dataset)
    print(LINE("real test images", *cells(real)))

    # --- Sample, Measure ---
    rows = []
    for seed in range(args.seed, args.seed + args.seeds):
        labels = data.stratified(args.samples, seed).labels if experiment.config.classes else None
        with tqdm(total=args.samples * (steps + 1), unit="step", desc=f"seed {seed}", leave=False) as bar:
            index = torch.arange(args.samples, device=device)
            images = generate(experiment, index, seed, None, labels, args.batch_size, bar.update, **told, **how)
        rows.append({"seed": seed} | score(images, reference)._asdict() | measured(images, labels, reference, dataset))
        print(LINE(f"seed {seed}", *cells(rows[-1])), flush=True)

    # --- Report ---
    fids = [row["fid"] for row in rows]
    spread = f" ± {statistics.stdev(fids):.4f} over {len(fids)} seeds" if len(fids) > 1 else ""
    mean = statistics.mean(fids)
    print(f"\nFID {mean:.4f}{spread}, {mean / real['fid']:.2f} times the floor")
    nearest, index = neighbours(images[:1000], data.images)
    usual, _ = neighbours(test.images[: min(1000, args.samples)], data.images)
    print(f"RMSE to the nearest training image: {nearest.mean():.4f} on average, at least {nearest.min():.4f}; "
          f"of real test images {usual.mean():.4f}, {usual.min():.4f}")  # fmt: skip
    if args.out:
        facts = {"weights": args.weights, "sampler": args.sampler or experiment.config.sampler, "calls": calls, **told}
        facts |= {"samples": args.samples, "floor": real["fid"], "floor_is": real["inception_score"], "rows": rows}
        append(args.out, facts | {"nearest": nearest.mean().item(), "nearest_of_real": usual.mean().item()})
    if args.sheet:
        draw(args.sheet, images[:48].cpu(), data.images[index[:48]].cpu() / 255)


def check(args: argparse.Namespace) -> None:
    """Raise UserError for files that could not be written: now, not after half an hour of sampling."""
    if args.sheet and args.sheet.suffix != ".png":
        raise UserError(f"--sheet {args.sheet}: the name must end in .png")
    if args.sheet and args.samples < 48:
        raise UserError(f"--sheet shows 48 samples: --samples must be at least that, not {args.samples}")
    for option, path in (("--sheet", args.sheet), ("--out", args.out)):
        if path and not writable(path):
            raise UserError(f"{option} {path}: no file can be written there")


def append(path: Path, facts: dict[str, Any]) -> None:
    """Add a line of JSON to a file, which is whole at every moment."""
    old = path.read_bytes() if path.exists() else b""
    files.write_atomically(path, lambda file: file.write(old + json.dumps(facts).encode() + b"\n"))
    print(f"appended to {path}")


def draw(path: Path, images: Tensor, nearest: Tensor) -> None:
    """A sheet of 48 images (48, C, H, W), a dozen in a row, each row above the training images nearest to it."""
    pairs = torch.stack([images, nearest])  # (2, 48, C, H, W)
    sheet = pairs.reshape(2, 4, 12, *pairs.shape[2:]).transpose(0, 1).flatten(0, 2)
    print(f"wrote {figures.grid(sheet, path, columns=12)}: each row of samples above their neighbours")


def writable(path: Path) -> bool:
    """Whether a file can be written there."""
    folder = next((each for each in path.absolute().parents if each.exists()), path)
    return not path.is_dir() and folder.is_dir() and os.access(folder, os.W_OK)


def measured(images: Tensor, labels: Tensor | None, reference: Reference, dataset: str) -> dict[str, Any]:
    """What there is to say of images beside their scores; of their labels only if a classifier of theirs looks."""
    row, eyes = coverage(images, reference)._asdict(), reference.extractor
    if eyes.dataset != dataset:
        return row
    seen = eyes(images)[1]
    shares = torch.bincount(seen.argmax(1), minlength=seen.shape[1]) / len(images)
    row |= {"labels": [round(each, 4) for each in shares.tolist()]}
    return row if labels is None else row | {"agreement": agreement(eyes, images, labels)}


def cells(row: dict[str, Any]) -> list[str]:
    """The cells of a table's line."""
    labels = row.get("labels")
    return [f"{row['fid']:.4f}", f"{row['inception_score']:.2f}", f"{row['kid']:.4f}",
            f"{row['agreement']:.2%}" if "agreement" in row else "–", f"{row['precision']:.3f}", f"{row['recall']:.3f}",
            f"{min(labels):.1%}–{max(labels):.1%}" if labels else "–"]  # fmt: skip
