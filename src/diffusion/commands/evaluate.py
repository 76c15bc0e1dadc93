"""Score a weight file on many samples: FID, IS, KID, label agreement, precision, recall, and whether it remembers."""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import figures, files
from diffusion.api.generation import generate, guided_denoiser
from diffusion.api.model import load as load_model
from diffusion.data.datasets import Dataset, load
from diffusion.errors import UserError
from diffusion.experiment.samplers import SamplingOptions, build_sampler
from diffusion.laboratory.device import open_device
from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.judge import named_extractor
from diffusion.laboratory.options import Parser, number
from diffusion.laboratory.progress import progress_bar, track
from diffusion.laboratory.settings import ScoreOptions
from diffusion.metrics.coverage import coverage, neighbours
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, floor, score

LINE = "{:<22}{:>10}{:>8}{:>9}{:>11}{:>11}{:>8}{:>14}".format
EXAMPLES = """examples:
  python src evaluate --weights unet                                  10,000 samples, 3 seeds: about half an hour of CPU
  python src evaluate --weights unet --sampler dpm --steps 10 --count 2000 --guidance-scale 2
"""


def parser() -> Parser:
    p = Parser(prog="python src evaluate", description=__doc__, epilog=EXAMPLES)
    count = {"type": number(int, 16), "default": 10_000, "help": "samples of each seed"}
    add_flags(p, "weights", "count", weights={"required": True}, count=count)
    p.add_argument("--seeds", type=number(int, 1), default=3, help="how often all is repeated, for the spread")
    add_flags(p, "seed", "sampler", "steps", "guidance-scale", "guidance-interval", seed={"help": "the first seed"})
    add_flags(p, "features", "inception-weights", "batch-size", "data-root", "device")
    p.add_argument("--out", type=Path, help="append the numbers to this file, one JSON object a line")
    p.add_argument("--sheet", type=Path, help="X.png: samples, each above the training image nearest to it")
    return p


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    check(args)
    device = open_device(args.device)
    experiment = load_model(args.weights, device).experiment
    options = SamplingOptions(args.sampler, args.steps, args.guidance_scale, args.guidance_interval)
    sampler = build_sampler(experiment, options)
    guided_denoiser(experiment, options)  # a scale without labels is refused now
    data, test, reference = real_images(args, experiment.config.dataset, device, experiment.config.classes > 0)
    eye = reference.extractor
    print(
        f"{args.weights}: {sampler.nfe} network calls a sample, guidance scale {args.guidance_scale:g}; {args.count:,} "
        f"samples a seed against {reference.n:,} training images;\n{eye.name}, sha256 {eye.sha256[:16]}\n"
    )
    print(LINE("", "FID", "IS", "KID", "agreement", "precision", "recall", "labels"))
    some, labels = test.images[: args.count], test.labels[: args.count]
    if args.count > len(some):
        print(f"(there are only {len(some):,} test images: the floor is theirs)")
    real = floor(some, reference)._asdict() | measure(some, labels, reference, data.name)
    print(LINE("real test images", *cells(real)))

    # --- Sample, Measure ---
    rows, index = [], torch.arange(args.count, device=device)
    for seed in range(args.seed, args.seed + args.seeds):
        labels = data.stratified(args.count, seed).labels if experiment.config.classes else None
        given = {"seed": seed, "labels": labels, "batch_size": args.batch_size}
        with progress_bar(args.count * (sampler.steps + 1), f"seed {seed}") as bar:
            images = generate(experiment, index, options, **given, tick=bar.update)
        rows.append({"seed": seed} | score(images, reference)._asdict() | measure(images, labels, reference, data.name))
        print(LINE(f"seed {seed}", *cells(rows[-1])), flush=True)

    # --- Report ---
    facts = {"weights": args.weights, "sampler": args.sampler or experiment.config.sampler, "calls": sampler.nfe}
    facts |= {"guidance_scale": options.guidance_scale, "interval": options.interval, "samples": args.count}
    facts |= {"floor": real["fid"], "floor_is": real["inception_score"], "rows": rows}
    report(args, facts, images, data, test)


def real_images(
    args: argparse.Namespace, dataset: str, device: torch.device, conditional: bool
) -> tuple[Dataset, Dataset, Reference]:
    """Training and test images, and what the former look like to the extractor."""
    eye = named_extractor(ScoreOptions.of(args), dataset, device)
    data, test = (load(dataset, split, args.data_root, device) for split in ("train", "test"))
    test = test.stratified(min(args.count, len(test))) if conditional else test.shuffled()
    return data, test, Reference.of(eye, data.images, args.data_root / "cache", lambda parts: track(parts, "real"))


def report(args: argparse.Namespace, facts: dict[str, Any], images: Tensor, data: Dataset, test: Dataset) -> None:
    """The mean over the seeds, the nearest training images of the last of them, and what is written."""
    fids = [row["fid"] for row in facts["rows"]]
    spread = f" ± {statistics.stdev(fids):.4f} over {len(fids)} seeds" if len(fids) > 1 else ""
    mean = statistics.mean(fids)
    print(f"\nFID {mean:.4f}{spread}, {mean / facts['floor']:.2f} times the floor")
    nearest, index = neighbours(images[:1000], data.images)
    usual, _ = neighbours(test.images[: min(1000, args.count)], data.images)
    of_ours, of_real = (f"{each.mean():.4f} on average, at least {each.min():.4f}" for each in (nearest, usual))
    print(f"RMSE to the nearest training image: {of_ours}; of real test images {of_real}")
    if args.out:
        append(args.out, facts | {"nearest": nearest.mean().item(), "nearest_of_real": usual.mean().item()})
    if args.sheet:
        draw(args.sheet, images[:48].cpu(), data.images[index[:48]].cpu() / 255)


def check(args: argparse.Namespace) -> None:
    """Raise UserError for files that could not be written: now, not after half an hour of sampling."""
    if args.sheet and args.sheet.suffix != ".png":
        raise UserError(f"--sheet {args.sheet}: the name must end in .png")
    if args.sheet and args.count < 48:
        raise UserError(f"--sheet shows 48 samples: --count must be at least that, not {args.count}")
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


def measure(images: Tensor, labels: Tensor | None, reference: Reference, dataset: str) -> dict[str, Any]:
    """Precision and recall; and how often each label is seen, where the classifier knows the labels of `dataset`."""
    row, eye = coverage(images, reference)._asdict(), reference.extractor
    if eye.dataset != dataset:
        return row
    logits = eye(images)[1]
    shares = torch.bincount(logits.argmax(1), minlength=logits.shape[1]) / len(images)
    row |= {"labels": [round(each, 4) for each in shares.tolist()]}
    return row if labels is None else row | {"agreement": agreement(eye, images, labels)}


def cells(row: dict[str, Any]) -> list[str]:
    """The cells of a table's line."""
    labels = row.get("labels")
    return [
        f"{row['fid']:.4f}",
        f"{row['inception_score']:.2f}",
        f"{row['kid']:.4f}",
        f"{row['agreement']:.2%}" if "agreement" in row else "–",
        f"{row['precision']:.3f}",
        f"{row['recall']:.3f}",
        f"{min(labels):.1%}–{max(labels):.1%}" if labels else "–",
    ]
