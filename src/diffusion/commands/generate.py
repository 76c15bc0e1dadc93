"""Draw samples from a weight file: a picture grid or an array of float32 images in [0, 1]."""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from diffusion import figures, files
from diffusion.api.generation import check_labels, generate, guided_denoiser
from diffusion.api.model import load as load_model
from diffusion.data.datasets import load
from diffusion.errors import UserError
from diffusion.experiment.samplers import SAMPLERS, build_sampler
from diffusion.laboratory.device import open_device
from diffusion.laboratory.options import Parser, directory, number, one_of

WAYS = [name for known in SAMPLERS.values() for name in known]
EXAMPLES = """examples:
  python src generate --weights unet --label 7 --count 64 --guidance-scale 2 --steps 10 --out grid.png
  python src generate --weights unet --count 10000 --out x.npy --labels y.npy
  python src generate --weights ddpm_mnist_1_default --count 16 --out digits.png
  python src generate --weights runs/DDPM_light/ddpm_mnist_1_light.pth --count 1000 --steps 1000 --out x.npy
  python src generate --weights custom_mnist_2_row_default_28 --from test --originals y.npy --labels z.npy --out x.npy
"""


def parser() -> Parser:
    p = Parser(prog="python src generate", description=__doc__, epilog=EXAMPLES)
    p.add_argument("--weights", required=True, help="a weight file, or the name of one in weights/ or runs/*/")
    p.add_argument("--count", type=number(int, 1, 10**9), default=16, help="how many samples")
    p.add_argument("--seed", type=number(int, 0), default=0, help="sample i of a seed is always the same image")
    p.add_argument("--label", type=number(int, 0), help="draw only this one (default: 0, 1, 2, … in turn)")
    p.add_argument("--guidance-scale", type=number(float, -100, 100), default=1.0,
                   help="0 ignores the label, 1 follows it, more exaggerates it")  # fmt: skip
    p.add_argument("--guidance-interval", type=number(float, 0, 1), nargs=2, default=(0.0, 1.0),
                   metavar=("LOW", "HIGH"), help="guide only between these times (default: 0 1, all)")  # fmt: skip
    p.add_argument("--from", dest="start", type=one_of("start", ["prior", "test"]), default="prior",
                   help="prior: from nothing; test: restore test images that are fully degraded")  # fmt: skip
    p.add_argument("--originals", type=Path, help="with --from test: write those test images here, X.npy")
    p.add_argument(
        "--labels",
        type=Path,
        help="write the labels here, X.npy: those drawn, or with --from test those of the test images",
    )
    p.add_argument("--data-root", type=directory, default=Path("data"), help="where data sets are kept")
    p.add_argument("--sampler", "--method", type=one_of("sampler", WAYS),
                   help=f"{', '.join(WAYS)}; the last four of cold weights (default: as saved)")  # fmt: skip
    usual = ", ".join(f"{way.steps} for {name}" for name, way in SAMPLERS["gaussian"].items())
    p.add_argument(
        "--steps",
        type=number(int, 1),
        help=f"of the sampler (default: {usual}, 1 for direct, T for the others, of pinned 28 or more)",
    )
    p.add_argument(
        "--variance", type=one_of("variance", ["beta", "posterior"]), help="of ddpm's noise (default: as saved)"
    )
    p.add_argument("--no-clip", action="store_true", help="let estimates of x_0 leave the range of images")
    p.add_argument(
        "--batch-size", type=number(int, 1), help="images at a time; does not change them (default: by device)"
    )
    p.add_argument("--device", type=one_of("device", ["auto", "cpu", "cuda"]), default="auto", help="auto: GPU if any")
    p.add_argument(
        "--out", type=Path, default=Path("samples.png"), help="X.png, a grid, or X.npy, float32 (N, C, H, W)"
    )
    return p


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    check(args)
    device = open_device(args.device)
    experiment = load_model(args.weights, device).experiment
    how = {"sampler": args.sampler, "steps": args.steps, "variance": args.variance}
    steps = len(build_sampler(experiment, **how).times) - 1
    told = {"guidance_scale": args.guidance_scale, "interval": tuple(args.guidance_interval)}
    guided_denoiser(experiment, **told)  # a wrong scale or label is refused now
    index = torch.arange(args.count, device=device)
    labels = check_labels(experiment, index, args.label).get("cond")
    if labels is None and args.labels and not args.start == "test":
        raise UserError(f"--labels {args.labels}: {args.weights} knows no labels")
    test = load(experiment.config.dataset, "test", args.data_root, device) if args.start == "test" else None
    if test and args.count > len(test):
        raise UserError(f"--count {args.count}: there are only {len(test)} test images")

    # --- Sample ---
    originals = test.images[: args.count] if test else None
    if test and labels is not None and args.label is None:
        labels = test.labels[: args.count]
    told |= {"clip": not args.no_clip, "batch_size": args.batch_size}
    with tqdm(total=args.count * (steps + 1), unit="step", desc="sampling", leave=False) as bar:
        images = generate(experiment, index, args.seed, originals, labels, tick=bar.update, **told, **how)

    # --- Write ---
    written = {args.out: images.cpu()}
    if test:
        written |= {args.originals: originals.cpu() / 255}
        labels = test.labels[: args.count]
    if labels is not None:
        written[args.labels] = labels.cpu()
    for path, values in written.items():
        if path and path.suffix == ".npy":
            files.write_atomically(path, lambda file, values=values: np.save(file, values.numpy()))
        elif path:
            figures.grid(values, path, columns=math.ceil(args.count**0.5))
    holds, epoch = experiment.about.get("holds", "?"), f"{experiment.about.get('epoch', 0):.4g}"
    print(f"{args.count} samples of {args.weights} ({holds} weights, epoch {epoch}), {steps} steps, seed {args.seed}: "
          f"{', '.join(str(path) for path in written if path)}")  # fmt: skip


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
