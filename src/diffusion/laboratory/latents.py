"""The latents of a data set, kept in a file beside it: made when they are missing, and anew when they are stale."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from diffusion.data.datasets import Dataset
from diffusion.data.latents import latents_path, load_latents, save_latents
from diffusion.errors import UserError
from diffusion.experiment.build import Experiment
from diffusion.laboratory.progress import track
from diffusion.method.codec import TOGETHER, Latents


def posterior(codec: Latents, data: Dataset, show: bool = True) -> Tensor:
    """Mean and log-variance (N, 2 C, H, W) of all of a data set's images, moving a bar."""
    parts = track(data.images.split(TOGETHER), f"encoding {data.name}", show=show)
    return torch.cat([codec.posterior(part) for part in parts])


def encoded(
    experiment: Experiment, data: Dataset, split: str, root: Path, say: Callable[[str], object] = print
) -> Dataset:
    """The split with latents for images, by the codec of the experiment: from their file or, if need be, into it."""
    codec, name = experiment.codec, experiment.config.codec
    assert isinstance(codec, Latents), "only a model of latents works on them"
    path = latents_path(root, data.name, split, name)
    reason = "there are none"
    if path.is_file():
        try:
            return load_latents(path, data, split, codec.digest)
        except UserError as error:  # stale, damaged, of something else
            reason = str(error).split("; ")[0]
    say(f"encoding {len(data):,} images of {data.name} {split} into {path}: {reason}")
    made = posterior(codec, data)
    save_latents(path, data, split, made, name, codec.digest)
    return replace(data, images=made)  # not from the file: another training may have put its own there meanwhile
