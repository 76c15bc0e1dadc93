"""Editing real images with a trained model: `model.edit`. Images are (B, C, H, W) in [0, 1]."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from diffusion.api.checks import (
    Label,
    check_batch,
    check_gaussian,
    check_images,
    check_mask,
    check_on_pixels,
    check_result,
    optional_labels,
)
from diffusion.api.generation import MakeDenoiser, image_noise, sampling_denoiser
from diffusion.errors import UserError, check_float, check_int
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import ALWAYS, Interval, SamplingOptions
from diffusion.experiment.sampling import Sampler, build_sampler
from diffusion.method import editing
from diffusion.method.arrays import as_images
from diffusion.method.denoiser import Denoise
from diffusion.method.noise import Noise
from diffusion.method.sampler import last
from diffusion.precision import methods_with_torch_defaults


def inpainting_sampler(experiment: Experiment, options: SamplingOptions) -> Sampler:
    """The sampler of `Editor.inpaint`; UserError for what cannot be."""
    check_gaussian(experiment, "inpainting")
    if options.sampler not in ("ddpm", "ddim"):
        raise UserError(f"inpainting goes by ddpm or ddim alone, not by {options.sampler!r}")
    return build_sampler(experiment, options)


def variation_sampler(experiment: Experiment, options: SamplingOptions, strength: float) -> Sampler:
    """The sampler of `Editor.vary`: its steps are even in t, from t = strength; UserError for what cannot be."""
    rule = "strength is a time above 0 (which would keep the picture) and up to 1"
    strength = check_float(rule, strength, lambda t: 0 < t <= 1)
    loop, process, times = build_sampler(experiment, replace(options, steps=None))
    most = process.timesteps and max(1, round(strength * process.timesteps))
    usual = max(1, round(strength * (len(times) - 1)))
    steps = min(usual, most or usual) if options.steps is None else options.steps
    steps = check_int(f"steps from t = {strength:g}", steps, 1, most)
    return Sampler(loop, process, process.times(steps, start=strength))


@methods_with_torch_defaults
class Editor:
    """Every method takes `label`, one or one for each image (None: unconditional), and the options of Model.sample.

    Its noise is independent of that of sampling: what was sampled from a seed can be edited with the same seed.
    """

    def __init__(self, experiment: Experiment, make_denoiser: MakeDenoiser = sampling_denoiser):
        self.experiment, self.make_denoiser = experiment, make_denoiser

    @torch.no_grad()
    def inpaint(
        self,
        images: Tensor,
        mask: Tensor,
        label: Label = None,
        *,
        seed: int = 0,
        resample: int = 10,
        sampler: str = "ddpm",
        steps: int | None = None,
        guidance_scale: float = 1.0,
        negative_prompt: str | None = None,
        interval: Interval = ALWAYS,
        variance: str | None = None,
        clip: bool = True,
    ) -> Tensor:
        """The images with new content where the mask (H, W) or (B or 1, 1, H, W) is 1; the rest is kept to the bit.

        RePaint (Lugmayr et al., 2022) by "ddpm" or "ddim": each step is taken `resample` times, so that both agree.
        """
        options = SamplingOptions(sampler, steps, guidance_scale, interval, variance, clip, 0, negative_prompt)
        _, process, times = inpainting_sampler(self.experiment, options)
        codec = check_on_pixels(self.experiment, "inpainting")
        images = check_batch(as_images(images), "images", self.experiment, codec.shape)
        mask = check_mask(mask, images)
        images = self._unit_range(images.masked_fill(mask, 0))  # what is there is never read
        denoiser = self.make_denoiser(self.experiment, options)
        cond = optional_labels(self.experiment, len(images), label, options)
        x_0, passes = codec.encode(images), check_int("resample, the passes a step,", resample, 1)
        noise = image_noise(images, seed)
        states = editing.inpaint(denoiser, process, x_0, mask, times, noise, passes, cond=cond)
        return torch.where(mask, self._finished(states), images)

    def vary(
        self,
        images: Tensor,
        strength: float = 0.5,
        label: Label = None,
        *,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        guidance_scale: float = 1.0,
        negative_prompt: str | None = None,
        interval: Interval = ALWAYS,
        variance: str | None = None,
        clip: bool = True,
    ) -> Tensor:
        """Other images like these: degraded to t = strength in (0, 1] and drawn anew. SDEdit, Meng et al. (2022).

        The steps are even in t; by default as many as the sampler takes from there on.
        """
        images = self._unit_range(images)
        options = SamplingOptions(sampler, steps, guidance_scale, interval, variance, clip, 0, negative_prompt)
        loop, process, times = variation_sampler(self.experiment, options, strength)
        denoiser = self.make_denoiser(self.experiment, options)
        cond = optional_labels(self.experiment, len(images), label, options)
        x_0, noise, steps = self.experiment.codec.encode(images), image_noise(images, seed), len(times) - 1
        states = editing.vary(denoiser, process, x_0, strength, steps, noise, loop, cond=cond)
        return self._finished(states)

    def interpolate(
        self,
        first: Tensor | int,
        second: Tensor | int,
        count: int = 8,
        label: Label = None,
        *,
        steps: int = 50,
        guidance_scale: float = 1.0,
        negative_prompt: str | None = None,
        interval: Interval = ALWAYS,
        clip: bool = True,
    ) -> Tensor:
        """`count` images (count, C, H, W) from the first to the second, on the arc between their noises, by DDIM.

        Each end is an image (C, H, W), which is inverted first, or a seed of noise.
        """
        check_gaussian(self.experiment, "an interpolation")
        options = SamplingOptions("ddim", steps, guidance_scale, interval, None, clip, 0, negative_prompt)
        count = check_int("count, with both ends,", count, 2)
        labels = optional_labels(self.experiment, count, label, options)
        at_first, at_second = (None, None) if labels is None else (labels[0], labels[-1])
        a, b = self._latent(first, at_first, options), self._latent(second, at_second, options)
        return self._ddim(editing.interpolate(a, b, torch.linspace(0, 1, count, device=a.device)), labels, options)

    def invert(
        self,
        images: Tensor,
        label: Label = None,
        *,
        steps: int = 50,
        refine: int = 2,
        guidance_scale: float = 1.0,
        negative_prompt: str | None = None,
        interval: Interval = ALWAYS,
        clip: bool = True,
    ) -> Tensor:
        """The noise x_1 (B, C, H, W) from which DDIM draws these images; `refine` corrections a step."""
        options = SamplingOptions("ddim", steps, guidance_scale, interval, None, clip, 0, negative_prompt)
        return self._invert(images, label, options, refine)

    def reconstruct(
        self,
        images: Tensor,
        label: Label = None,
        *,
        steps: int = 50,
        refine: int = 2,
        guidance_scale: float = 1.0,
        negative_prompt: str | None = None,
        interval: Interval = ALWAYS,
        clip: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """(images, error): inverted and sampled again, and the RMSE (B,) of that in units of [0, 1]."""
        options = SamplingOptions("ddim", steps, guidance_scale, interval, None, clip, 0, negative_prompt)
        back = self._ddim(self._invert(images, label, options, refine), label, options)
        return back, (back - self._unit_range(images)).square().mean((1, 2, 3)).sqrt()

    def _prepare(self, count: int, label: Label, options: SamplingOptions) -> tuple[Denoise, Sampler, Tensor | None]:
        """What draws `count` images of these labels: the denoiser, the sampler, the condition."""
        denoiser, sampler = self.make_denoiser(self.experiment, options), build_sampler(self.experiment, options)
        return denoiser, sampler, optional_labels(self.experiment, count, label, options)

    def _ddim(self, x_1: Tensor, label: Label, options: SamplingOptions) -> Tensor:
        denoiser, (loop, process, times), cond = self._prepare(len(x_1), label, options)
        return self._finished(loop(denoiser, process, x_1, times, cond=cond))

    def _invert(self, images: Tensor, label: Label, options: SamplingOptions, refine: int) -> Tensor:
        check_gaussian(self.experiment, "an inversion")
        images = self._unit_range(images)
        denoiser, (_, process, times), cond = self._prepare(len(images), label, options)
        check_int("steps of an inversion", len(times) - 1, 2)
        x_0, refine = self.experiment.codec.encode(images), check_int("refine, the corrections a step,", refine, 0)
        return check_result(last(editing.invert(denoiser, process, x_0, times, refine, cond=cond)))

    def _latent(self, end: Tensor | int, label: Label, options: SamplingOptions) -> Tensor:
        """The noise x_1 (C, H, W) of a seed, or from which an image (C, H, W) is drawn."""
        if getattr(end, "ndim", 0) or isinstance(end, list | tuple):
            return self._invert(as_images(end)[None], label, options, 2)[0]
        device = self.experiment.device
        like, seed = torch.empty(1, *self.experiment.codec.shape, device=device), check_int("a seed", end, 0)
        return self.experiment.process.prior(like, Noise(seed, torch.zeros(1, device=device)))[0]

    def _finished(self, states: Iterator[Tensor]) -> Tensor:
        """The last state as images."""
        return self.experiment.codec.decode(check_result(last(states)))

    def _unit_range(self, images: Tensor) -> Tensor:
        images = check_images(images, self.experiment)
        return images / 255 if images.dtype == torch.uint8 else images
