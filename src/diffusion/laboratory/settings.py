"""How a run is kept and scored, and the Config that options, a preset or file, and a resumed run agree on."""

from argparse import Namespace
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from diffusion.data.datasets import DATASETS
from diffusion.errors import UserError, unknown
from diffusion.experiment.config import Config
from diffusion.experiment.recipe import SETTINGS
from diffusion.laboratory.options import directory, number, one_of
from diffusion.metrics.features import CLASSIFIERS
from diffusion.precision import computes_bf16

CHANGEABLE = ("dataset", "lr", "batch_size", "precision", "seed", "axis", "order", "noise", "loss")  # by options
FEATURES = ("auto", *CLASSIFIERS, "inception")
T = TypeVar("T")


def option(default: Any, explanation: str, **argument: Any) -> Any:
    """A field that is an option of command lines, too: its default, its help, what else argparse has to know."""
    return field(default=default, metadata={"default": default, "help": explanation, **argument})


@dataclass(frozen=True)
class RunOptions:
    """How a run is kept and scored, whatever is trained."""

    out: Path = option(Path("."), "where runs/, Plots/ and contents/ are made", type=directory)
    data_root: Path = option(Path("data"), "where data sets are kept", type=directory)
    device: str = option("auto", "auto is the GPU if there is one", type=one_of("device", ["auto", "cpu", "cuda"]))
    resume: bool = option(False, "continue this run from its last saved state", action="store_true")
    limit_steps: int | None = option(None, "end the training after this many steps in all", type=number(int, 1))
    save_every: float = option(60, "seconds between saves", type=number(float, 0))
    eval_samples: int = option(1024, "images a score is measured on", type=number(int, 2))
    eval_seeds: int = option(3, "seeds of the final score, for its spread", type=number(int, 1))
    features: str = option("auto", "of FID and IS; auto: the data set's classifier", type=one_of("features", FEATURES))
    inception_weights: Path | None = option(None, "Inception's file, if it cannot be downloaded", type=Path)
    changes: dict[str, Any] = field(default_factory=dict)  # settings of the Config that the user gave as options

    @classmethod
    def of(cls, args: Namespace) -> "RunOptions":
        """From a command line."""
        changes = {key: getattr(args, key) for key in CHANGEABLE if getattr(args, key, None) is not None}
        return replace(options_of(cls, args), changes=changes)


def options_of(kind: type[T], args: Namespace) -> T:
    """The options of that kind on a command line; those that it does not have keep their defaults."""
    return kind(**{each.name: getattr(args, each.name) for each in fields(kind) if hasattr(args, each.name)})


def resolve_config(base: Config, changes: dict[str, Any], explicit: Collection[str], device: torch.device) -> Config:
    """`base` with the user's changes, and with what the data set and the device decide.

    UserError for a data set that there is not, and for `explicit` settings that do not go with it.
    """
    config = base.replace(**changes)
    if config.dataset not in DATASETS:
        raise unknown("dataset", config.dataset, DATASETS)
    shape, labels = DATASETS[config.dataset].shape, len(DATASETS[config.dataset].classes)
    if "shape" in explicit and config.shape != shape:
        raise UserError(f"the images of {config.dataset} have the shape {shape}, not {config.shape}")
    if config.classes not in (0, labels):
        raise UserError(f"{config.dataset} has {labels} labels: classes must be that or 0, not {config.classes}")
    fastest = "bf16" if computes_bf16(device) else "fp32"
    return config.replace(shape=shape, precision=fastest if config.precision == "auto" else config.precision)


def describe_differences(saved: Config, config: Config, changes: Collection[str], explicit: Collection[str]) -> str:
    """What a resumed run keeps to, other than `config` says; in words, none if it says the same.

    UserError if one of the user's `changes` or an `explicit` setting of a file is among it.
    """
    names = {key: name for name, key in SETTINGS.items() if key in explicit}  # field -> what the user calls it
    names |= {key: key for key in changes}
    differing = [key for key, value in asdict(saved).items() if value != asdict(config)[key]]
    for key in differing:
        if key in names:
            was = f"the run was made with {names[key]} {getattr(saved, key)}, not {getattr(config, key)}"
            raise UserError(f"{was}: leave the option out, or start anew without --resume")
    return ", ".join(f"{key} {getattr(saved, key)}" for key in differing if key != "precision")
