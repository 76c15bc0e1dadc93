"""What an autoencoder keeps of test images."""

from argparse import Namespace

import torch

from diffusion import figures
from diffusion.api.generation import reconstruct
from diffusion.api.model import load as load_model
from diffusion.data.datasets import Dataset, load
from diffusion.errors import UserError
from diffusion.experiment.build import Experiment
from diffusion.laboratory import versions
from diffusion.laboratory.device import open_device
from diffusion.laboratory.flags import RunOptions
from diffusion.laboratory.judge import open_reference
from diffusion.laboratory.settings import check_data
from diffusion.laboratory.show import row
from diffusion.method.codec import Latents
from diffusion.metrics.classifiers import check_features
from diffusion.metrics.scores import floor, score


def main(args: Namespace) -> None:
    # --- Setup ---
    path = versions.open_version(args, "autoencoder", "vae", "flow")
    experiment = load_model(path, open_device(args.device)).experiment
    if not isinstance(experiment.codec, Latents):
        raise UserError(f"{path} works on pixels: there is nothing to reconstruct")
    dataset = versions.dataset_of(args) if args.dataset else experiment.config.dataset
    if not args.no_fid:
        check_features(args.features, dataset)
    test = load(dataset, "test", args.data_root, experiment.device)
    check_data(experiment.config.replace(classes=0), test)  # a codec knows no labels

    # --- Reconstruct, Measure ---
    again = reconstruct(experiment, test.images)
    error = (again - test.images / 255).square().flatten(1).sum(1) / 2
    print(
        f"{experiment.origin}: {experiment.codec.shape[0]} latents an image, {len(test):,} test images of {dataset}\n"
    )
    print(row("", "half SSE", "RMSE"))
    print(line("all", error, test))
    for label, name in enumerate(test.classes):
        print(line(name, error[test.labels == label], test))
    if not args.no_fid:
        reference = open_reference(RunOptions.of(args), load(dataset, "train", args.data_root, experiment.device))
        fid, real = score(again, reference), floor(test.images, reference)
        print(
            f"\nFID {fid.fid:.4f}, {fid.fid / real.fid:.2f} times that of the originals, {real.fid:.4f}; N = {fid.n:,};"
        )
        print(f"{reference.extractor.name}, sha256 {reference.extractor.sha256[:16]}")

    # --- Report ---
    print(f"wrote {picture(args, experiment, test, again)}: rows of originals, of reconstructions, of errors")


def line(name: str, error: torch.Tensor, test: Dataset) -> str:
    """Half the squared error of an image, and the root of the mean over its pixels."""
    rmse = (2 * error.mean() / test.images[0].numel()) ** 0.5
    return row(name, f"{error.mean():.2f}", f"{rmse:.4f}") if len(error) else row(name, "–", "–")


def picture(args, experiment: Experiment, test: Dataset, again: torch.Tensor):
    """Originals above reconstructions above errors, white where nothing is left of the difference's blackness."""
    originals, rows = test.images[: args.height * args.width] / 255, []
    for x, y in zip(originals.cpu().split(args.width), again[: len(originals)].cpu().split(args.width)):
        rows += [x, y, 1 - (x - y).abs()]
    return figures.grid(
        torch.cat(rows), args.out, columns=args.width, scale=max(1, round(100 * args.scale / x.shape[-1]))
    )
