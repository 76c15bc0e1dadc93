"""Draw samples from a weight file: a picture grid or an array of float32 images in [0, 1]."""

import argparse
import contextlib
import math
import webbrowser
from pathlib import Path

import numpy as np
import torch

from diffusion import figures, files
from diffusion.api.checks import check_labels, label_or_prompt
from diffusion.api.generation import generate
from diffusion.api.model import load as load_model
from diffusion.data.sources import load
from diffusion.errors import UserError
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import MOST_DIFFUSION, VARIANCES, SamplingOptions, sampler_name
from diffusion.laboratory import versions
from diffusion.laboratory.device import open_device
from diffusion.laboratory.flags import add_flags, options_of
from diffusion.laboratory.judge import check_sampling
from diffusion.laboratory.options import Parser, number, one_of, output_file
from diffusion.laboratory.progress import progress_bar
from diffusion.method.codec import Latents

EXAMPLES = """examples:
  python src generate --weights unet --label 7 --count 64 --guidance-scale 2 --steps 10 --out grid.png
  python src generate --weights unet --count 10000 --out x.npy --labels y.npy
  python src generate --weights 'cold_unet row' --from test --originals y.npy --labels z.npy --out x.npy
  python src generate --weights text_digits --prompt 'a large blue three left of a small green eight' --count 4
  python src generate --weights default@20 --count 16 --out digits.png
  python src generate --weights runs/DDPM_light/ddpm_mnist_1_light.pth --count 1000 --steps 1000 --out x.npy
  python src generate --dataset FashionMNIST --model flow --label 9 --height 4 --width 10 --diffusion 1
"""
GRID = {"height": 8, "width": 8, "scale": 0.8, "guidance_scale": 3.0, "diffusion": 0.5}  # defaults of --model


def parser() -> Parser:
    p, array, start = Parser(__doc__, EXAMPLES, "generate"), output_file(".npy"), one_of("start", ["prior", "test"])
    labels = "write the labels here, X.npy: those drawn, or with --from test those of the test images"
    count = {"default": None, "help": "how many samples (default: 16, or height times width)"}
    add_flags(p, "weights", "preset", "count", "seed", count=count)
    condition = p.add_mutually_exclusive_group()
    condition.add_argument("--label", type=number(int, 0), help="draw only this one (default: 0, 1, 2, … in turn)")
    condition.add_argument("--prompt", help="of text weights: what to draw; a word that they do not know is refused")
    p.add_argument("--negative-prompt", help="… and what not: guidance leads away from it")
    add_flags(p, "guidance-scale", "guidance-interval", "sampler", "steps")
    noise = "of a flow on straight lines: noise drawn on the way, 0 to 2.8 (default: as sampled; of --model 0.5)"
    p.add_argument("--diffusion", type=number(float, 0, MOST_DIFFUSION), help=noise)
    p.add_argument(
        "--variance", type=one_of("variance", VARIANCES), help="beta or posterior, of ddpm's noise (default: as saved)"
    )
    p.add_argument("--no-clip", dest="clip", action="store_false", help="let estimates of x_0 leave the images' range")
    p.add_argument("--from", dest="start", type=start, default="prior", help="prior: new; test: restore test images")
    p.add_argument("--originals", type=array, help="with --from test: write those test images here, X.npy")
    p.add_argument("--labels", type=array, help=labels)
    what = "X.png, a grid, or X.npy, float32 (N, C, H, W)"
    out = {"type": output_file(".png", ".npy"), "default": "samples.png", "help": what}
    p.add_argument("--height", type=number(int, 1, 1000), help="rows of the grid (of --model: 8)")
    p.add_argument("--width", type=number(int, 1, 1000), help="images in a row (of --model: 8)")
    p.add_argument(
        "--scale", type=number(float, 0.1, 10), help="size of an image, in inches of 100 pixels (of --model: 0.8)"
    )
    p.add_argument("--show", action="store_true", help="open the picture, too")
    add_flags(p, "dataset", "batch-size", "data-root", "device", "out", out=out, dataset={"default": None})
    group = versions.add_model_flags(p, "flow")
    version = {"type": one_of("version", versions.VERSIONS), "help": "refuse a flow that was not trained on this codec"}
    group.add_argument("--autoencoder-version", **version)
    return p


def main(argv: list[str] | None = None) -> None:
    # --- Setup ---
    args = complete(parser().parse_args(argv))
    if args.originals and args.start != "test":
        raise UserError("--originals goes with --from test: samples of the prior have none")
    paths = [path.resolve() for path in (args.out, args.originals, args.labels) if path]
    if len(set(paths)) < len(paths):
        raise UserError("--out, --originals and --labels: two of them are the same file")
    device = open_device(args.device)
    experiment = load_model(args.weights, device, preset=args.preset).experiment
    if args.autoencoder_version:
        check_codec(experiment, args)
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
    written = [write(path, values, args.width, args.scale) for path, values in arrays.items() if path]
    sampler = sampler_name(experiment, options)
    what = f"{args.count} samples of {experiment.origin}, {sampler} in {steps} steps, seed {args.seed}"
    print(f"{what}: {', '.join(map(str, written))}")
    if args.show and not webbrowser.open(args.out.resolve().as_uri()):
        print(f"there is no viewer here that shows {args.out}")


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """The options with what was not said: --model is the weights of a data set's flow, and a grid of its samples."""
    args.weights = versions.open_version(args, "flow")
    for name, usual in GRID.items() if args.model else ():
        if getattr(args, name) is None and not (name in ("height", "width") and args.count):
            setattr(args, name, usual)
    if args.diffusion == GRID["diffusion"] and args.sampler not in (None, "sde", "ddpm"):
        args.diffusion = None
    if args.height or args.width:
        args.height, args.width = args.height or args.width, args.width or args.height
        if args.count:
            raise UserError(f"--count {args.count}: height times width is how many there are; say one or the other")
        args.count = args.height * args.width
    args.count = args.count or 16
    return args


def check_codec(experiment: Experiment, args: argparse.Namespace) -> None:
    """UserError unless the flow was trained on that version of an autoencoder of its data set."""
    own = experiment.codec.digest if isinstance(experiment.codec, Latents) else "pixels"
    known = {}
    for model in ("vae", "autoencoder"):
        with contextlib.suppress(UserError):  # there need not be both
            path = versions.find_version(experiment.config.dataset, model, args.autoencoder_version)
            known[path] = load_model(path).experiment.codec.digest
    if own not in known.values():
        found = ", ".join(f"{path} is {digest}" for path, digest in known.items()) or "there is none"
        version = f"the {args.autoencoder_version} version of an autoencoder"
        raise UserError(f"this flow carries its own codec ({own}), which is not {version}: {found}")


def write(path: Path, values: torch.Tensor, width: int | None, scale: float | None) -> Path:
    """An array as .npy, images also as a grid, square if no width is given."""
    if path.suffix == ".npy":
        return files.write_atomically(path, lambda file: np.save(file, values.cpu().numpy()))
    pixels = 4 if scale is None else max(1, round(100 * scale / values.shape[-1]))
    return figures.grid(values, path, columns=width or math.ceil(len(values) ** 0.5), scale=pixels)
