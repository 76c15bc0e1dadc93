"""The options of everything that trains, and the Config that they, a preset or file, and a resumed run agree on."""

import argparse
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import torch

from diffusion.data.datasets import DATASETS
from diffusion.errors import UserError, unknown
from diffusion.experiment.config import Config
from diffusion.experiment.recipe import NAMED
from diffusion.laboratory.options import directory, number, one_of
from diffusion.precision import computes_bf16

CHANGEABLE = ("lr", "batch_size", "precision", "seed", "axis", "order", "noise", "loss")  # by options


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """What is common to everything that trains."""
    group = parser.add_argument_group("training")
    group.add_argument("--dataset", type=one_of("dataset", DATASETS), default="MNIST", help=", ".join(DATASETS))
    group.add_argument("--data-root", type=directory, default=Path("data"), help="where data sets are kept")
    group.add_argument("--out", type=directory, default=Path("."), help="where runs/, Plots/ and contents/ are made")
    group.add_argument("--seed", type=number(int, 0), help="of weights, order and noise (default: 0)")
    group.add_argument("--lr", type=number(float, 1e-9), help="learning rate (default: the preset's)")
    group.add_argument("--batch-size", type=number(int, 1), help="of all processes together (default: 128)")
    group.add_argument("--precision", type=one_of("precision", ["bf16", "fp32"]),
                       help="of the network (default: bf16 where the processor computes in it)")  # fmt: skip
    group.add_argument("--device", type=one_of("device", ["auto", "cpu", "cuda"]), default="auto",
                       help="auto is the GPU if there is one")  # fmt: skip
    group.add_argument("--resume", action="store_true", help="continue this run from its last saved state")
    group.add_argument("--limit-steps", type=number(int, 1), help="end the training after this many steps in all")
    group.add_argument("--save-every", type=number(float, 0), default=60, help="seconds between saves in an epoch")


def given(args: argparse.Namespace) -> dict[str, object]:
    """The settings that options change."""
    changed = {key: getattr(args, key) for key in CHANGEABLE if getattr(args, key, None) is not None}
    return changed | ({"dataset": args.dataset} if args.dataset else {})


def decided(base: Config, args: argparse.Namespace, told: Collection[str], device: torch.device) -> Config:
    """`base` as the options change it, with what the data set and the device decide.

    UserError for a data set that there is not, and for a shape that was `told` and is not its images'.
    """
    config = base.replace(**given(args))
    if config.dataset not in DATASETS:
        raise unknown("dataset", config.dataset, DATASETS)
    shape = DATASETS[config.dataset].shape
    if "shape" in told and config.shape != shape:
        raise UserError(f"the images of {config.dataset} have the shape {shape}, not {config.shape}")
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if computes_bf16(device) else "fp32"
    return config.replace(shape=shape, precision=precision)


def check_resumed(saved: Config, config: Config, args: argparse.Namespace, told: Collection[str]) -> None:
    """Raise UserError if options, or settings that were `told`, contradict the run that is resumed."""
    insisted = {key: key for key in given(args)}  # -> what the user calls it
    for key, name in ({key: NAMED[key] for key in told} | insisted).items():
        if getattr(saved, key) != getattr(config, key):
            raise UserError(f"the run was made with {name} {getattr(saved, key)}, not {getattr(config, key)}: leave "
                            "the option out, or start anew without --resume")  # fmt: skip


def kept(saved: Config, config: Config) -> str:
    """What a resumed run keeps to, other than `config` says; in words, none if it says the same."""
    others = [key for key, value in asdict(saved).items() if value != asdict(config)[key] and key != "precision"]
    return ", ".join(f"{key} {getattr(saved, key)}" for key in others)
