"""All data sets by name: those of images with labels, and those of pictures with captions."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from diffusion.data import datasets, digits, emoji, folder, nouns
from diffusion.data.datasets import Dataset
from diffusion.data.registry import NAMES
from diffusion.errors import unknown
from diffusion.files import expand
from diffusion.precision import torch_defaults

LOADERS: dict[str, Callable[..., Dataset]] = {  # load(split, root, samples); labels are words, classes the vocabulary
    "digits": digits.load,
    "digits-simple": partial(digits.load, name="digits-simple"),
    "nouns": nouns.load,
    "emoji": emoji.load,
    "folder": folder.load_folder,
    "wikiart": folder.load_wikiart,
}


@torch_defaults()
def load(
    name: str,
    split: str = "train",
    root: str | Path = "data",
    device: str | torch.device = "cpu",
    samples: int | None = None,
) -> Dataset:
    """A split ("train" or "test") of a data set; `samples` of those pictures, if it is one that is drawn.

    UserError for an unknown name or split, and when a file cannot be had.
    """
    if name not in NAMES:
        raise unknown("dataset", name, NAMES)
    if name not in LOADERS:
        return datasets.load(name, split, root, device)
    if split not in ("train", "test"):
        raise unknown("split", split, ("train", "test"))
    data = LOADERS[name](split, expand(root), samples)
    return replace(data, images=data.images.contiguous()).to(device)  # channels last: slower, and in bf16 other bits
