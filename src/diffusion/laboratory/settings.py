"""How a run is kept and scored, and the Config that options, a preset or file, and a resumed run agree on."""

from argparse import Namespace
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from diffusion.data.datasets import DATASETS
from diffusion.errors import UserError, unknown
from diffusion.experiment.config import Config
from diffusion.experiment.recipe import SETTINGS
from diffusion.precision import computes_bf16

CHANGEABLE = ("dataset", "lr", "batch_size", "precision", "seed", "axis", "order", "noise", "loss")  # by options


@dataclass(frozen=True)
class RunOptions:
    """How a run is kept, whatever is trained."""

    out: Path = Path(".")  # where runs/, Plots/ and contents/ are made
    data_root: Path = Path("data")
    device: str = "auto"  # or "cpu", "cuda"
    resume: bool = False
    limit_steps: int | None = None  # end the training after so many steps in all
    save_every: float = 60  # seconds
    changes: dict[str, Any] = field(default_factory=dict)  # settings of the Config that the user gave as options

    @classmethod
    def of(cls, args: Namespace) -> "RunOptions":
        """From a command line; an option that it does not have keeps its default."""
        given = {key: getattr(args, key) for key in CHANGEABLE if getattr(args, key, None) is not None}
        return cls(**_named(cls, args), changes=given)


@dataclass(frozen=True)
class ScoreOptions:
    """What scores are measured on, and with what features."""

    eval_samples: int = 1024  # images of a score
    eval_seeds: int = 3  # of the final score, for its spread
    features: str = "auto"  # the classifier of the data set, or as in metrics.features
    inception_weights: Path | None = None

    @classmethod
    def of(cls, args: Namespace) -> "ScoreOptions":
        """From a command line."""
        return cls(**_named(cls, args))


def _named(kind: type, args: Namespace) -> dict[str, Any]:
    return {each.name: getattr(args, each.name) for each in fields(kind) if hasattr(args, each.name)}


def resolve_config(base: Config, changes: dict[str, Any], explicit: Collection[str], device: torch.device) -> Config:
    """`base` with the user's changes, and with what the data set and the device decide.

    UserError for a data set that there is not, and for an `explicit` shape that is not that of its images.
    """
    config = base.replace(**changes)
    if config.dataset not in DATASETS:
        raise unknown("dataset", config.dataset, DATASETS)
    shape = DATASETS[config.dataset].shape
    if "shape" in explicit and config.shape != shape:
        raise UserError(f"the images of {config.dataset} have the shape {shape}, not {config.shape}")
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if computes_bf16(device) else "fp32"
    return config.replace(shape=shape, precision=precision)


def check_resumed(saved: Config, config: Config, changes: Collection[str], explicit: Collection[str]) -> None:
    """Raise UserError if options (`changes`) or `explicit` settings of a file contradict the run that is resumed."""
    names = {key: name for name, key in SETTINGS.items() if key in explicit}  # field -> what the user calls it
    names |= {key: key for key in changes}
    for key, name in names.items():
        if getattr(saved, key) != getattr(config, key):
            was = f"the run was made with {name} {getattr(saved, key)}, not {getattr(config, key)}"
            raise UserError(f"{was}: leave the option out, or start anew without --resume")


def describe_differences(saved: Config, config: Config) -> str:
    """What a resumed run keeps to, other than `config` says; in words, none if it says the same."""
    others = [key for key, value in asdict(saved).items() if value != asdict(config)[key] and key != "precision"]
    return ", ".join(f"{key} {getattr(saved, key)}" for key in others)
