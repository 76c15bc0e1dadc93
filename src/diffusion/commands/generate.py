"""Draw samples from a weight file: a picture grid or an array of float32 images in [0, 1]."""

import math
from pathlib import Path

import numpy as np
import torch

from diffusion import figures, files
from diffusion.api.checks import check_labels, label_or_prompt
from diffusion.api.generation import generate
from diffusion.api.model import load as load_model
from diffusion.data.sources import load
from diffusion.errors import UserError
from diffusion.experiment.samplers import VARIANCES, SamplingOptions, sampler_name
from diffusion.laboratory.device import open_device
from diffusion.laboratory.flags import add_flags, options_of
from diffusion.laboratory.judge import check_sampling
from diffusion.laboratory.options import Parser, number, one_of, output_file
from diffusion.laboratory.progress import progress_bar

EXAMPLES = """examples:
  python src generate --weights unet --label 7 --count 64 --guidance-scale 2 --steps 10 --out grid.png
  python src generate --weights unet --count 10000 --out x.npy --labels y.npy
  python src generate --weights 'cold_unet row' --from test --originals y.npy --labels z.npy --out x.npy
  python src generate --weights text_digits --prompt 'a large blue three left of a small green eight' --count 4
  python src generate --weights default@20 --count 16 --out digits.png
  python src generate --weights runs/DDPM_light/ddpm_mnist_1_light.pth --count 1000 --steps 1000 --out x.npy
"""


def parser() -> Parser:
    p, array, start = Parser(__doc__, EXAMPLES, "generate"), output_file(".npy"), one_of("start", ["prior", "test"])
    labels = "write the labels here, X.npy: those drawn, or with --from test those of the test images"
    add_flags(p, "weights", "preset", "count", "seed", weights={"required": True})
    condition = p.add_mutually_exclusive_group()
    condition.add_argument("--label", type=number(int, 0), help="draw only this one (default: 0, 1, 2, … in turn)")
    condition.add_argument("--prompt", help="of text weights: what to draw; a word that they do not know is refused")
    p.add_argument("--negative-prompt", help="… and what not: guidance leads away from it")
    add_flags(p, "guidance-scale", "guidance-interval", "sampler", "steps")
    p.add_argument(
        "--variance", type=one_of("variance", VARIANCES), help="beta or posterior, of ddpm's noise (default: as saved)"
    )
    p.add_argument("--no-clip", dest="clip", action="store_false", help="let estimates of x_0 leave the images' range")
    p.add_argument("--from", dest="start", type=start, default="prior", help="prior: new; test: restore test images")
    p.add_argument("--originals", type=array, help="with --from test: write those test images here, X.npy")
    p.add_argument("--labels", type=array, help=labels)
    what = "X.png, a grid, or X.npy, float32 (N, C, H, W)"
    out = {"type": output_file(".png", ".npy"), "default": "samples.png", "help": what}
    add_flags(p, "batch-size", "data-root", "device", "out", out=out)
    return p


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = parser().parse_args(argv)
    if args.originals and args.start != "test":
        raise UserError("--originals goes with --from test: samples of the prior have none")
    paths = [path.resolve() for path in (args.out, args.originals, args.labels) if path]
    if len(set(paths)) < len(paths):
        raise UserError("--out, --originals and --labels: two of them are the same file")
    device = open_device(args.device)
    experiment = load_model(args.weights, device, preset=args.preset).experiment
    options = options_of(SamplingOptions, args)
    steps, index = check_sampling(experiment, options).steps, torch.arange(args.count, device=device)
    cond = check_labels(experiment, index, label_or_prompt(experiment, args.label, args.prompt))
    originals, labels = None, cond
    if args.start == "test":
        test = load(experiment.config.dataset, "test", args.data_root, device)
        if args.count > len(test):
            raise UserError(f"--count {args.count}: there are only {len(test)} test images")
        originals, labels = test.images[: args.count], test.labels[: args.count]
        cond = cond if cond is None or args.label is not None else labels
    elif args.labels and labels is None:
        raise UserError(f"--labels {args.labels}: {args.weights} knows no labels")

    # --- Sample ---
    given = {"seed": args.seed, "labels": cond, "originals": originals, "batch_size": args.batch_size}
    with progress_bar(args.count * (steps + 1), "sampling") as bar:
        images = generate(experiment, index, options, **given, tick=bar.update)

    # --- Write ---
    arrays = {args.out: images, args.originals: originals / 255 if args.originals else None, args.labels: labels}
    written = [write(path, values) for path, values in arrays.items() if path]
    sampler = sampler_name(experiment, options)
    what = f"{args.count} samples of {experiment.origin}, {sampler} in {steps} steps, seed {args.seed}"
    print(f"{what}: {', '.join(map(str, written))}")


def write(path: Path, values: torch.Tensor) -> Path:
    """An array as .npy, images also as a square grid."""
    if path.suffix == ".npy":
        return files.write_atomically(path, lambda file: np.save(file, values.cpu().numpy()))
    return figures.grid(values, path, columns=math.ceil(len(values) ** 0.5))
