"""The Config of a run, that options, a preset or file, and the run that is resumed agree on."""

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import torch

from diffusion.data.datasets import Dataset
from diffusion.data.registry import CAPTIONED, DATASETS, NAMES
from diffusion.errors import UserError, unknown
from diffusion.experiment.config import Config
from diffusion.experiment.recipe import SETTINGS
from diffusion.precision import computes_bf16


def resolve_config(base: Config, changes: dict[str, Any], explicit: Collection[str], device: torch.device) -> Config:
    """`base` with the user's changes, and with what the data set and the device decide.

    UserError for a data set that there is not, and for `explicit` settings that do not go with it.
    """
    config = base.replace(**changes)
    if config.dataset not in NAMES:
        raise unknown("dataset", config.dataset, NAMES)
    if (config.dataset in CAPTIONED) is not (config.network == "text"):
        raise UserError(f"the network 'text' and the data sets with captions, {', '.join(CAPTIONED)}, go together")
    fastest = "bf16" if computes_bf16(device) else "fp32"
    config = config.replace(precision=fastest if config.precision == "auto" else config.precision)
    if config.dataset in CAPTIONED:
        return config  # shape and words are known when the captions are read
    shape, labels = DATASETS[config.dataset].shape, len(DATASETS[config.dataset].classes)
    if "shape" in explicit and config.shape != shape:
        raise UserError(f"the images of {config.dataset} have the shape {shape}, not {config.shape}")
    if config.samples:
        raise UserError(f"data.samples goes with the data sets that have captions; {config.dataset} is used whole")
    if config.classes not in (0, labels):
        raise UserError(f"{config.dataset} has {labels} labels: classes must be that or 0, not {config.classes}")
    return config.replace(shape=shape)


def describe_captions(config: Config, data: Dataset, resumed: bool) -> Config:
    """The config of a text network with the shape and the words of its data; UserError if a resumed run had others."""
    if config.network != "text":
        return config
    known = {"shape": tuple(data.images.shape[1:]), "words": data.classes, "caption_length": data.labels.shape[1]}
    found = config.replace(**known)
    if resumed and config.caption_length and found != config:
        raise UserError(f"the captions of {config.dataset} are not those that the run was begun with: start anew")
    return found


def check_data(config: Config, data: Dataset) -> None:
    """UserError unless the data, which may come from another machine, are what the config is for."""
    shape, labels = tuple(data.images.shape[1:]), len(data.classes)
    if shape != config.shape or config.classes not in (0, labels):
        what = f"{data.name} has images of {shape} and {labels} labels"
        raise UserError(f"{what}: this model is for {config.shape} and {config.classes or 'any'}")


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
    found = ("precision", *(("shape", "words", "caption_length") if saved.network == "text" else ()))  # not chosen
    return ", ".join(f"{key} {getattr(saved, key)}" for key in differing if key not in found)
