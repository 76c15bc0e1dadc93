"""The weight files of the coursework that this repository rebuilds: bare state dicts, whose names say the rest.

ddpm_mnist_{epoch}_{preset}.pth     custom_mnist_{epoch}_{axis}_{preset}.pth
"""

import re
from dataclasses import asdict
from typing import Any

from torch import Tensor

from diffusion.errors import UserError
from diffusion.experiment.config import Config
from diffusion.experiment.presets import COLD, DDPM, preset
from diffusion.method.averaging import rank_of

NAME = re.compile(r"(?:ddpm|custom)_mnist_(?P<epoch>\d+)_(?:(?P<axis>row|col)_)?(?P<preset>\w+)")
ORDERS = {"row": "rows_t", "col": "cols_t"}  # axis -> where the file keeps the order of its lines


def run_names(config: Config) -> tuple[str, str]:
    """The coursework's name for the run of a preset, and for its weight files by {dataset} and {epoch}."""
    if config.process == "averaging":
        name = f"{config.axis}_{config.preset}"
        return f"custom_{name}", f"custom_{{dataset}}_{{epoch}}_{name}.pth"
    return f"DDPM_{config.preset}", f"ddpm_{{dataset}}_{{epoch}}_{config.preset}.pth"


def is_coursework(content: object) -> bool:
    """Whether a loaded file is a bare state dict of the coursework."""
    return isinstance(content, dict) and "gt.frequencies" in content


def read(content: dict[str, Tensor], stem: str) -> dict[str, Any]:
    """Its content as a file of ours would hold it; `stem` is the file's name without .pth.

    Widths, T and the order of the lines are read off the tensors. The activation is not in them, so the name has to
    hold the preset: UserError if it does not, or if name and content are of different kinds.
    """
    match = NAME.fullmatch(stem)
    if not match:
        names = "ddpm_mnist_EPOCH_PRESET.pth or custom_mnist_EPOCH_AXIS_PRESET.pth"
        raise UserError(f"{stem!r} holds the coursework's weights, which do not say their activation: name it {names}")
    axis = match["axis"]
    if (needed := ORDERS[axis] if axis else "alpha_t") not in content:
        raise UserError(f"{stem!r} is not what its name says: it has no {needed!r}")
    network = {key.removeprefix("gt."): value for key, value in content.items() if key.startswith("gt.")}
    convolutions = sorted(key for key in network if re.fullmatch(r"blocks\.\d\.net\.0\.weight", key))
    config, process = preset(COLD if axis else DDPM, match["preset"]), {}
    config = config.replace(hidden=tuple(len(network[key]) for key in convolutions))
    if axis:
        order = content[needed].long().reshape(len(content[needed]), -1)  # (T, lines per group)
        config, process = config.replace(axis=axis, timesteps=len(order), noise=0.0), {"rank": rank_of(order)}
    else:
        config = config.replace(timesteps=len(content[needed]) - 1, variance="beta")
    about = {"epoch": int(match["epoch"]), "holds": "raw", "scores": {}}
    return {"config": asdict(config), "network": network, "process": process, "about": about}
