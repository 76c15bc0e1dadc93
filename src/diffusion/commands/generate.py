"""Draw samples from a weight file: a picture grid or an array of float32 images in [0, 1]."""

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from diffusion import figures, files
from diffusion.api.generation import check_labels, generate, guided_denoiser
from diffusion.api.model import load as load_model
from diffusion.data.datasets import load
from diffusion.errors import UserError
from diffusion.experiment.samplers import VARIANCES, SamplingOptions, build_sampler
from diffusion.laboratory.device import open_device
from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, number, one_of
from diffusion.laboratory.progress import progress_bar

EXAMPLES = """examples:
  python src generate --weights unet --label 7 --count 64 --guidance-scale 2 --steps 10 --out grid.png
  python src generate --weights unet --count 10000 --out x.npy --labels y.npy
  python src generate --weights 'cold_unet row' --from test --originals y.npy --labels z.npy --out x.npy
  python src generate --weights default@20 --count 16 --out digits.png
  python src generate --weights runs/DDPM_light/ddpm_mnist_1_light.pth --count 1000 --steps 1000 --out x.npy
"""


def parser() -> Parser:
    p = Parser(prog="python src generate", description=__doc__, epilog=EXAMPLES)
    start = one_of("start", ["prior", "test"])
    labels = "write the labels here, X.npy: those drawn, or with --from test those of the test images"
    add_flags(p, "weights", "count", "seed", weights={"required": True})
    p.add_argument("--label", type=number(int, 0), help="draw only this one (default: 0, 1, 2, … in turn)")
    add_flags(p, "guidance-scale", "guidance-interval", "sampler", "steps")
    p.add_argument("--variance", type=one_of("variance", VARIANCES), help="of ddpm's noise (default: as saved)")
    p.add_argument("--no-clip", action="store_true", help="let estimates of x_0 leave the range of images")
    p.add_argument("--from", dest="start", type=start, default="prior", help="prior: new; test: restore test images")
    p.add_argument("--originals", type=Path, help="with --from test: write those test images here, X.npy")
    p.add_argument("--labels", type=Path, help=labels)
    out = {"type": Path, "default": Path("samples.png"), "help": "X.png, a grid, or X.npy, float32 (N, C, H, W)"}
    add_flags(p, "batch-size", "data-root", "device", "out", out=out)
    return p


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    check(args)
    device = open_device(args.device)
    experiment = load_model(args.weights, device).experiment
    options = SamplingOptions(
        args.sampler, args.steps, args.guidance_scale, args.guidance_interval, args.variance, not args.no_clip
    )
    steps = build_sampler(experiment, options).steps
    guided_denoiser(experiment, options)  # a scale without labels is refused now
    index = torch.arange(args.count, device=device)
    labels, restored = check_labels(experiment, index, args.label), args.start == "test"
    if labels is None and args.labels and not restored:
        raise UserError(f"--labels {args.labels}: {args.weights} knows no labels")
    test = load(experiment.config.dataset, "test", args.data_root, device) if restored else None
    if test and args.count > len(test):
        raise UserError(f"--count {args.count}: there are only {len(test)} test images")

    # --- Sample ---
    originals = test.images[: args.count] if test else None
    if test and labels is not None and args.label is None:
        labels = test.labels[: args.count]
    given = {"seed": args.seed, "labels": labels, "originals": originals, "batch_size": args.batch_size}
    with progress_bar(args.count * (steps + 1), "sampling") as bar:
        images = generate(experiment, index, options, **given, tick=bar.update)

    # --- Write ---
    labels = test.labels[: args.count] if test else labels
    arrays = {args.out: images, args.originals: originals / 255 if test else None, args.labels: labels}
    written = [write(path, values.cpu()) for path, values in arrays.items() if path and values is not None]
    holds, epoch = experiment.about.get("holds", "?"), f"{experiment.about.get('epoch', 0):.4g}"
    what = f"{args.count} samples of {args.weights} ({holds} weights, epoch {epoch}), {steps} steps, seed {args.seed}"
    print(f"{what}: {', '.join(map(str, written))}")


def write(path: Path, values: torch.Tensor) -> Path:
    """An array as .npy, images also as a square grid."""
    if path.suffix == ".npy":
        return files.write_atomically(path, lambda file: np.save(file, values.numpy()))
    return figures.grid(values, path, columns=math.ceil(len(values) ** 0.5))


def check(args: argparse.Namespace) -> None:
    """Raise UserError for output files of a wrong kind, or without a purpose."""
    if args.out.suffix not in (".png", ".npy"):
        raise UserError(f"--out {args.out}: the name must end in .png (a grid) or .npy (an array)")
    if args.originals and args.start != "test":
        raise UserError("--originals goes with --from test: samples of the prior have none")
    taken = {args.out.resolve()}
    for name in ("originals", "labels"):
        path = getattr(args, name)
        if path and path.suffix != ".npy":
            raise UserError(f"--{name} {path}: the name must end in .npy")
        if path and path.resolve() in taken:
            raise UserError(f"--{name} {path}: something else is to be written to that file")
        taken |= {path.resolve()} if path else set()
