"""Samples of an experiment: all states from noise to image, and the finished images."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from diffusion.api.checks import Label, check_captions, check_labels, check_result
from diffusion.errors import UserError, check_int
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import AS_SAVED, SamplingOptions
from diffusion.experiment.sampling import build_sampler, clips
from diffusion.method.denoiser import Clipped, Denoise
from diffusion.method.guidance import Guided
from diffusion.method.noise import Noise, fold_in
from diffusion.precision import torch_defaults


def guidance_scale(experiment: Experiment, options: SamplingOptions) -> float:
    """The scale of the options, or that with which the weights were saved."""
    return experiment.config.guidance_scale if options.guidance_scale is None else options.guidance_scale


def guided_denoiser(experiment: Experiment, options: SamplingOptions = AS_SAVED) -> Denoise:
    """The experiment's denoiser, guided and clipped as the options say; UserError if there are no labels to follow."""
    scale, negative = guidance_scale(experiment, options), None
    if scale != 1 and not experiment.config.conditional:
        raise UserError("these weights know no labels, so there is nothing to guide: leave the guidance scale at 1")
    if options.negative_prompt is not None:
        negative = check_captions(experiment, options.negative_prompt, 1).to(experiment.device)
        if scale in (0, 1):
            raise UserError(f"a negative prompt does nothing at guidance scale {scale:g}: take 2, say")
    denoiser = Guided(experiment.denoiser, scale, options.interval, negative)
    return Clipped(denoiser, experiment.codec.low, experiment.codec.high) if clips(experiment, options) else denoiser


def sampling_denoiser(experiment: Experiment, options: SamplingOptions = AS_SAVED) -> Denoise:
    """The same for many calls without gradients: weights are cast once."""
    return guided_denoiser(replace(experiment, denoiser=experiment.denoiser.for_sampling()), options)


MakeDenoiser = Callable[[Experiment, SamplingOptions], Denoise]  # guided_denoiser, or what wraps its denoiser


def trajectory(
    experiment: Experiment,
    index: Tensor,
    options: SamplingOptions = AS_SAVED,
    *,
    seed: int | Tensor = 0,
    labels: Label = None,
    originals: Tensor | None = None,
    make_denoiser: MakeDenoiser = sampling_denoiser,
    decode: bool = True,
) -> Iterator[Tensor]:
    """Every state, from x_1 down to x_0, of the samples `index` (B,): images (B, C, H, W) in [0, 1].

    With decode=False they are in units of the process. x_1 is drawn from the prior, or it is `originals` (B, C, H, W),
    uint8 or in [0, 1], fully degraded. Sample i of a seed, or of a seed each (B,), is the same image whatever else is
    in the batch. `labels` as in `check_labels`.
    """
    loop, process, times = build_sampler(experiment, options)
    denoiser, cond = make_denoiser(experiment, options), check_labels(experiment, index, labels)
    codec, noise = experiment.codec, Noise(seed if isinstance(seed, Tensor) else check_int("a seed", seed, 0), index)
    if originals is None:
        if options.begin:
            raise UserError("only originals can be restored from a later step: there are none")
        if not process.has_prior:
            raise UserError("these weights do not say what averaged images look like: start from test images instead")
        x_1 = process.prior(torch.empty(len(index), *codec.shape, device=index.device), noise)
    else:
        x_0 = codec.encode(originals)
        x_1 = process.degrade(x_0, times[0], noise(x_0) if process.adds_noise else None)
    shown = codec.decode if decode else lambda x: x
    yield shown(x_1)
    for x in loop(denoiser, process, x_1, times, noise, cond=cond):
        yield shown(x)
    check_result(x)


@torch_defaults()
def generate(
    experiment: Experiment,
    index: Tensor,
    options: SamplingOptions = AS_SAVED,
    *,
    seed: int = 0,
    labels: Label = None,
    originals: Tensor | None = None,
    batch_size: int | None = None,
    tick: Callable[[int], object] = lambda images: None,
) -> Tensor:
    """The finished images (N, C, H, W) of the samples `index` (N,), computed `batch_size` at a time.

    None is 128 images on a CPU, where memory for more is slow to come by, and 1024 elsewhere or of latents. `labels`
    and `originals` are of all N. `tick(n)` is called whenever n images are a state further: each reaches steps + 1.
    """
    cond = check_labels(experiment, index, labels)
    parts = [torch.empty(0, *experiment.config.shape, device=index.device)]  # a process's share may be no image
    small = index.device.type != "cpu" or prod(experiment.codec.shape) < 100
    usual = 1024 if small else 128
    batch_size = usual if batch_size is None else check_int("batch_size", batch_size, 1)
    denoiser = sampling_denoiser(experiment, options)
    for first in range(0, len(index), batch_size):
        part = slice(first, first + batch_size)
        given: dict[str, Any] = {"labels": None if cond is None else cond[part]}
        given["originals"] = None if originals is None else originals[part]
        given["make_denoiser"] = lambda *_: denoiser
        for x in trajectory(experiment, index[part], options, seed=seed, decode=False, **given):
            tick(len(x))
        parts.append(experiment.codec.decode(x))
    return torch.cat(parts)


def reconstruct(experiment: Experiment, images: Tensor) -> Tensor:
    """Images (N, C, H, W), uint8 or in [0, 1], encoded and decoded."""
    return experiment.codec.decode(experiment.codec.encode(images))


def degrade_images(experiment: Experiment, images: Tensor, t: Tensor, seed: int = 0) -> Tensor:
    """Images (B, C, H, W), uint8 or in [0, 1], degraded to times t, () or (B,); back in [0, 1]."""
    x_0, index = experiment.codec.encode(images), torch.arange(len(images), device=images.device)
    return experiment.codec.decode(experiment.process.degrade(x_0, t.to(images.device), Noise(seed, index)(x_0)))


def image_noise(images: Tensor, seed: int) -> Noise:
    """The noise of images that somebody hands in: other than what they may have been sampled from by that seed."""
    return Noise(fold_in(check_int("a seed", seed, 0)), torch.arange(len(images), device=images.device))
