"""Losses of a model on test images, and labels by Bayes' rule."""

import time
from argparse import Namespace
from typing import Any

import torch

from diffusion import figures, files
from diffusion.api.model import load as load_model
from diffusion.cli.test import DRAWS
from diffusion.data.datasets import Dataset, load
from diffusion.errors import UserError
from diffusion.experiment.build import Experiment
from diffusion.laboratory import versions
from diffusion.laboratory.classification import (
    Answer,
    Codes,
    by_importance,
    by_mixtures,
    by_pixels,
    pixel_variance,
)
from diffusion.laboratory.device import open_device
from diffusion.laboratory.losses import codec_losses, held_out_loss
from diffusion.laboratory.settings import check_data
from diffusion.laboratory.show import row
from diffusion.method import bayes
from diffusion.method.codec import Latents

PIXEL_MODELS = {"MNIST": "unet", "FashionMNIST": "unet_fashion"}


def main(args: Namespace) -> None:
    # --- Setup ---
    began = time.monotonic()
    path = versions.open_version(args, *versions.MODELS)
    experiment = load_model(path, open_device(args.device)).experiment
    if not isinstance(experiment.codec, Latents):
        raise UserError(f"{path} works on pixels: `python src evaluate` scores it")
    dataset = versions.dataset_of(args) if args.dataset else experiment.config.dataset
    load_split = lambda split: load(dataset, split, args.data_root, experiment.device)
    test = load_split("test").shuffled()
    check_data(experiment.config, test)
    test = test[torch.arange(min(args.count or len(test), len(test)), device=experiment.device)]

    # --- Measure ---
    print(f"{experiment.origin}; {len(test):,} test images of {dataset}\n")
    record = {"weights": str(path), "dataset": dataset, "n": len(test), **losses(experiment, test)}
    if not experiment.config.is_codec and experiment.config.classes:
        train, held_out = load_split("train").without(experiment.config.held_out)
        record["bayes"] = classify(args, experiment, train, held_out, test)

    # --- Report ---
    print(f"\nthis command took {time.monotonic() - began:.0f} s, by {torch.get_num_threads()} threads")
    if args.out:
        print(f"appended to {files.append_line(args.out, record)}")


def losses(experiment: Experiment, test: Dataset) -> dict[str, float]:
    """Of the codec and, if that is not all, of the flow on its latents."""
    found = codec_losses(experiment.codec, test)
    if not experiment.config.is_codec:
        found["flow_loss"] = held_out_loss(experiment, test)
    for name, value in found.items():
        print(f"{name.replace('_', ' '):<16}{value:.4f}")
    return found


def classify(
    args: Namespace, experiment: Experiment, train: Dataset, held_out: Dataset, test: Dataset
) -> list[dict[str, Any]]:
    """Accuracies by every way to log p(x | y), printed as they come."""
    log_prior = bayes.class_prior(train.labels, experiment.config.classes).to(test.labels.device)
    codes, found = Codes(experiment, test, args.steps), []

    def say(answer: Answer) -> None:
        plain, balanced = bayes.accuracies(answer.nats + log_prior, answer.labels)
        cells = f"{len(answer.labels):,}", f"{plain:.2%}", f"{balanced:.2%}", f"{answer.seconds:.0f} s"
        print(row(answer.name, *cells), flush=True)
        found.append({"name": answer.name, "n": len(answer.labels), "accuracy": plain, "balanced": balanced})
        found[-1] |= {"seconds": round(answer.seconds, 1), "meaning": answer.meaning}

    print("\n" + row("labels by Bayes' rule", "images", "accuracy", "balanced", "took"))
    say(by_code := codes.answer(log_prior))
    if args.draws and codes.codec.autoencoder.variational and len(held_out):
        counts = tuple(each for each in DRAWS if each <= args.draws) or (args.draws,)
        for answer in by_importance(codes, by_code, log_prior, pixel_variance(codes.codec, held_out), counts):
            say(answer)
    for answer in by_mixtures(codes.codec, train, test):
        say(answer)
    if pixels := pixel_model(args, test):
        say(by_pixels(pixels, test[torch.arange(min(args.pixel_count, len(test)), device=test.labels.device)]))
    print()
    for meaning in dict.fromkeys(each["meaning"] for each in found):
        print(f"{', '.join(each['name'] for each in found if each['meaning'] == meaning)}: {meaning}.")
    if args.exhaustive:
        count = min(args.exhaustive, len(test))
        same = (codes.exhaustive(count) + log_prior).argmax(1) == (by_code.nats[:count] + log_prior).argmax(1)
        print(f"the stages and the exact trace under every class agree on {same.sum()} of {count:,} images")
        found.append({"name": "exhaustive", "n": count, "same": int(same.sum())})
    matrix, title = bayes.confusion(by_code.nats + log_prior, test.labels), f"{experiment.config.preset}, by the code"
    print(f"wrote {figures.confusion(matrix, test.classes, args.picture, title)}")
    return found


def pixel_model(args: Namespace, test: Dataset) -> Experiment | None:
    """The class-conditional pixel model to compare with, if there is one for this data set."""
    name = args.pixels or PIXEL_MODELS.get(test.name)
    if not name or not args.pixel_count:
        return None
    experiment = load_model(name, open_device(args.device)).experiment
    if experiment.config.classes != len(test.classes) or isinstance(experiment.codec, Latents):
        raise UserError(f"--pixels {name}: it is no model of pixels that knows the labels of {test.name}")
    return experiment
