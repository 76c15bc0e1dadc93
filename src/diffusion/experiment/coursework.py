"""The weight files of the coursework that this repository rebuilds: bare state dicts, whose names say the rest.

ddpm_mnist_{epoch}_{preset}.pth     custom_mnist_{epoch}_{axis}_{preset}.pth

People wrap them: {"state_dict": …}, {"model": …, "optimizer": …}, "module." or "model." before the keys.
"""

import re
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from diffusion.errors import UserError
from diffusion.experiment.naming import NAME
from diffusion.experiment.presets import COLD, DDPM, preset
from diffusion.method.averaging import rank_of
from diffusion.method.schedule import LinearBeta

MARK = "gt.frequencies"  # a key of every state dict of the coursework, and of no other
ORDERS = {"row": "rows_t", "col": "cols_t"}  # axis -> where the file keeps the order of its lines


def plain_keys(state: dict[Any, Any]) -> dict[str, Any]:
    """A state dict without what DataParallel and torch.compile insert into its keys, wherever that is."""
    plain = lambda key: ".".join(part for part in str(key).split(".") if part not in ("module", "_orig_mod"))
    return {plain(key): value for key, value in state.items()}


def find_states(content: object, name: str = "") -> dict[str, dict[str, Any]]:
    """The coursework's state dicts in a loaded file, by the keys they lie under, their own keys without prefixes."""
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        return {}
    plain, found = plain_keys(content), {}
    for mark in [key for key in plain if f".{key}".endswith(f".{MARK}")]:
        prefix = mark.removesuffix(MARK)
        own = {key.removeprefix(prefix): value for key, value in plain.items() if key.startswith(prefix)}
        found[f"{name}.{prefix}".strip(".")] = own
    if found:
        return found
    parts = [find_states(value, f"{name}.{key}".strip(".")) for key, value in content.items()]
    return {key: state for part in parts for key, state in part.items()}


def read(states: dict[str, dict[str, Any]], stem: str, named: str | None = None) -> dict[str, Any]:
    """What `find_states` found, as a file of ours would hold it; `stem` is the file's name without .pth.

    Widths, T, alpha_bar and the order of the lines are read off the tensors. The activation is not in them, so the
    preset has to be `named`, by the caller or by the file: UserError if it is not, if name and content are of different
    kinds, or if a table cannot be one.
    """
    content, about = _chosen(states, stem)
    name = NAME.fullmatch(stem)
    if (line := named or (name["preset"] if name else None)) is None:
        names = "ddpm_mnist_EPOCH_PRESET.pth or custom_mnist_EPOCH_AXIS_PRESET.pth"
        why = f"{stem!r} holds the coursework's weights, which do not say their activation"
        raise UserError(f"{why}: name the preset (--preset NAME, or preset=NAME in load), or the file {names}")
    axis = name["axis"] if name else next((axis for axis, key in ORDERS.items() if key in content), None)
    if (needed := ORDERS[axis] if axis else "alpha_t") not in content:
        raise UserError(f"{stem!r} is not what its name says: it has no {needed!r}")
    for key, value in content.items():
        if key.startswith(("gt.", needed)) and not (isinstance(value, Tensor) and value.ndim):
            raise UserError(f"the weights in {stem!r} are damaged: {key!r} is not a table of numbers")
    network = {key.removeprefix("gt."): value for key, value in content.items() if key.startswith("gt.")}
    convolutions = [key for key in network if re.fullmatch(r"blocks\.\d+\.net\.0\.weight", key)]
    convolutions.sort(key=lambda key: int(key.split(".")[1]))
    config, process = preset(COLD if axis else DDPM, line), {}
    config = config.replace(hidden=tuple(len(network[key]) for key in convolutions))
    table = content[needed]
    if axis:
        if not torch.equal(table.double().flatten().sort().values, torch.arange(28.0).double()):
            raise UserError(f"{needed!r} in {stem!r} is no order of lines: it has to hold each of 0 … 27 once")
        order = table.long().reshape(len(table), -1)  # (T, lines per group)
        # Trained without t = T: of all samplers, pinned restores best from there (docs/results.md).
        config = config.replace(axis=axis, timesteps=len(order), noise=0.0, sampler="pinned")
        process = {"rank": rank_of(order)}
    else:
        config = config.replace(timesteps=len(table) - 1, variance="beta")
        usual = LinearBeta(config.timesteps, config.beta_min, config.beta_max).alpha_bar
        close = table.shape == usual.shape and torch.allclose(table.double(), usual, rtol=1e-4, atol=0)
        if not close:  # beyond float32's error
            process = {"schedule.alpha_bar": table}
    about |= {"epoch": int(name["epoch"])} if name else {}
    return {"config": asdict(config), "network": network, "process": process, "about": about}


def _chosen(states: dict[str, dict[str, Any]], stem: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state dict that is meant, of several the averaged one, and what is known about it."""
    averaged = [name for name in states if "ema" in name.lower()]
    if len(states) > 1 and len(averaged) != 1:
        raise UserError(f"{stem!r} holds several state dicts, {', '.join(states)}: save the one that is meant alone")
    name = averaged[0] if averaged else next(iter(states))
    return states[name], {"holds": "ema" if averaged else "raw", "scores": {}}
