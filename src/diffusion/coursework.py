"""The coursework's own weight files: bare state dicts, named ddpm_mnist_{epoch}_{preset}.pth, read as they are."""

import re
from typing import NamedTuple

from torch import Tensor

from diffusion.config import DDPM, Config
from diffusion.errors import UserError, unknown

NAME = re.compile(r"ddpm_mnist_(?P<epoch>\d+)_(?P<preset>\w+)")


class Parts(NamedTuple):
    """What a file of the coursework says."""

    config: Config
    epoch: int
    network: dict[str, Tensor]


def is_coursework(content: object) -> bool:
    """Whether a loaded file is a bare state dict of the coursework's DDPM."""
    return isinstance(content, dict) and "gt.frequencies" in content and "alpha_t" in content


def read(content: dict[str, Tensor], stem: str) -> Parts:
    """Config and network state of a bare state dict; `stem` is the file's name without .pth.

    Widths and T are read off the tensors; the activation is not in them, so the name must tell the preset.
    """
    match = NAME.fullmatch(stem)
    if not match:
        raise UserError(f"{stem!r} holds the coursework's bare weights, which do not say their activation: "
                        "name it ddpm_mnist_EPOCH_PRESET.pth")  # fmt: skip
    if match["preset"] not in DDPM:
        raise unknown("preset", match["preset"], DDPM)
    network = {key.removeprefix("gt."): value for key, value in content.items() if key.startswith("gt.")}
    convs = [key for key in network if re.fullmatch(r"blocks\.\d+\.net\.0\.weight", key)]
    config = DDPM[match["preset"]].replace(
        hidden=tuple(len(network[key]) for key in sorted(convs, key=lambda key: int(key.split(".")[1]))),
        timesteps=len(content["alpha_t"]) - 1,
    )
    return Parts(config, int(match["epoch"]), network)
