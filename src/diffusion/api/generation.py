"""Samples of an experiment: the ways back by name, their states, and the finished images."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from diffusion.errors import UserError, check_int
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import build_sampler
from diffusion.method.denoiser import Clipped
from diffusion.method.guidance import Guided
from diffusion.method.noise import Noise


def guided_denoiser(
    experiment: Experiment, guidance_scale: float = 1.0, interval: tuple[float, float] = (0.0, 1.0), clip: bool = True
) -> Callable[..., Tensor]:
    """The experiment's denoiser, guided, its estimates of x_0 kept in the range of images if `clip`.

    UserError for a scale that is no number, and for one that would do nothing, as the network knows no labels.
    """
    if guidance_scale != 1 and not experiment.config.classes:
        raise UserError("these weights know no labels, so there is nothing to guide: leave the guidance scale at 1")
    denoiser = Guided(experiment.denoiser, guidance_scale, interval)
    return Clipped(denoiser, experiment.codec.low, experiment.codec.high) if clip else denoiser


def check_labels(experiment: Experiment, index: Tensor, labels: Tensor | int | None = None) -> dict[str, Tensor]:
    """What the denoiser is told of the samples `index` (B,): nothing, or labels; 0, 1, 2, … in turn if none is given.

    UserError for labels that the network does not know.
    """
    classes = experiment.config.classes
    if labels is None:
        return {"cond": index % classes} if classes else {}
    if not classes:
        raise UserError("these weights know no labels: leave the label out")
    try:
        cond = torch.as_tensor(labels, device=index.device)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        cond = torch.tensor(torch.nan)
    if cond.is_floating_point() or cond.is_complex() or cond.dtype == torch.bool:
        raise UserError(f"a label is an integer from 0 to {classes - 1}, not {labels!r:.40}")
    if cond.shape not in ((), (1,), (len(index),)):
        raise UserError(f"{len(index)} images need one label or {len(index)}, not labels of shape {tuple(cond.shape)}")
    wrong = cond[(cond < 0) | (cond >= classes)]
    if wrong.numel():
        raise UserError(f"a label is an integer from 0 to {classes - 1}, not {wrong[0]}")
    return {"cond": cond.long().expand(len(index))}


def trajectory(
    experiment: Experiment,
    index: Tensor,
    seed: int = 0,
    originals: Tensor | None = None,
    clip: bool = True,
    labels: Tensor | int | None = None,
    guidance_scale: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    **how: Any,
) -> Iterator[Tensor]:
    """Every state, from x_1 down to x_0, of the samples `index` (B,): images (B, C, H, W) in [0, 1].

    x_1 is drawn from the prior, or is what is left of `originals` (B, C, H, W), uint8 or in [0, 1]. Sample i of a seed
    is the same whatever else is in the batch. `labels` are those of `check_labels`; `clip` keeps every x_0 in
    range; `how` is for `build_sampler`, its `begin` only where there are originals.
    """
    if how.get("begin") and originals is None:
        raise UserError("only what is left of originals can begin late: there are none")
    loop, process, times = build_sampler(experiment, **how)
    codec, noise = experiment.codec, Noise(seed, index)
    denoiser = guided_denoiser(experiment, guidance_scale, interval, clip)
    cond = check_labels(experiment, index, labels)
    if originals is None:
        x_1 = process.prior(torch.empty(len(index), *experiment.config.shape, device=index.device), noise)
    else:
        x_1 = process.degrade(codec.encode(originals), times[0], noise)
    yield codec.decode(x_1)
    yield from map(codec.decode, loop(denoiser, process, x_1, times, noise, **cond))


def generate(
    experiment: Experiment,
    index: Tensor,
    seed: int = 0,
    originals: Tensor | None = None,
    labels: Tensor | int | None = None,
    batch_size: int | None = None,
    tick: Callable[[int], object] = lambda images: None,
    **how: Any,
) -> Tensor:
    """The finished images (N, C, H, W) of the samples `index` (N,), of which `batch_size` are computed at a time.

    None is 128 on a CPU, where memory for more is slow to come by, and 1024 elsewhere.

    `originals` (N, C, H, W) and `labels` (N,), if given, are of all of them; `how` is for `trajectory`. `tick(n)` is
    called whenever n images are a state further: in all, each of the N reaches len(build_sampler(…).times) states.
    """
    told = check_labels(experiment, index, labels).get("cond")
    parts = [torch.empty(0, *experiment.config.shape, device=index.device)]  # a process's share may be no image
    usual = 128 if index.device.type == "cpu" else 1024
    batch_size = usual if batch_size is None else check_int("batch_size", batch_size, 1)
    for first in range(0, len(index), batch_size):
        part = slice(first, first + batch_size)
        begin, cond = (None if each is None else each[part] for each in (originals, told))
        for state in trajectory(experiment, index[part], seed, begin, labels=cond, **how):
            tick(len(state))
        parts.append(state)
    return torch.cat(parts)


def degrade_images(experiment: Experiment, images: Tensor, t: Tensor, seed: int = 0) -> Tensor:
    """Images (B, C, H, W), uint8 or in [0, 1], degraded to times t, () or (B,); back in [0, 1]."""
    noise = Noise(seed, torch.arange(len(images), device=images.device))
    x_0, decode = experiment.codec.encode(images), experiment.codec.decode
    return decode(experiment.process.degrade(x_0, t.to(images.device), noise))
