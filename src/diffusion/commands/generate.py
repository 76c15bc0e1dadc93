"""Samples of a weight file, as a picture or an array."""

import contextlib
import math
import webbrowser
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

from diffusion import figures, files
from diffusion.api.checks import check_labels, label_or_prompt
from diffusion.api.generation import generate
from diffusion.api.model import load as load_model
from diffusion.data import captions
from diffusion.data.sources import load
from diffusion.errors import UserError
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.sampling import sampler_name
from diffusion.laboratory import versions
from diffusion.laboratory.checks import check_sampling
from diffusion.laboratory.device import open_device
from diffusion.laboratory.flags import options_of
from diffusion.laboratory.progress import progress_bar
from diffusion.method.codec import Latents


def main(args: Namespace) -> None:
    # --- Setup ---
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
        if cond is not None and args.label is None and args.prompt is None:
            cond = captions.decode(labels, test.classes) if experiment.reader else labels
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


def check_codec(experiment: Experiment, args: Namespace) -> None:
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
