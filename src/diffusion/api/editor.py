"""Editing real images with a trained model: `model.edit`. Images are (B, C, H, W) in [0, 1]."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.api.checks import as_tensor, check_images, check_mask, check_strength, device_of, optional_labels
from diffusion.api.generation import guided_denoiser
from diffusion.errors import UserError, check_int
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import Sampler, SamplingOptions, build_sampler
from diffusion.method import editing
from diffusion.method.noise import Noise, fold_in
from diffusion.method.sampler import last


class Editor:
    """Every method takes `label`, one or one for each image (None: unconditional), and the options of Model.sample.

    Its noise is independent of that of sampling: what was sampled from a seed can be edited with the same seed.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment

    def inpaint(
        self,
        images: Tensor,
        mask: Tensor,
        label: int | Tensor | None = None,
        *,
        seed: int = 0,
        resample: int = 10,
        sampler: str = "ddpm",
        steps: int | None = None,
        guidance_scale: float = 1.0,
        interval: tuple[float, float] = (0.0, 1.0),
        variance: str | None = None,
        clip: bool = True,
    ) -> Tensor:
        """The images with new content where the mask (H, W) or (B or 1, 1, H, W) is 1; the rest is kept to the bit.

        Each step is taken `resample` times, so that new and old agree. RePaint, Lugmayr et al. (2022), by "ddpm" or
        "ddim".
        """
        self._needs_noise("filling in")
        if sampler not in ("ddpm", "ddim"):
            raise UserError(f"this goes by ddpm or ddim alone, not by {sampler!r}")
        images = as_tensor(images, "images")
        if images.ndim == 4:
            mask = check_mask(mask, images).to(images.device)
            images = images.masked_fill(mask, 0)  # what is there is never read
        images = self._unit_range(images)
        mask = mask.to(images.device)
        options = SamplingOptions(sampler, steps, guidance_scale, interval, variance, clip)
        denoiser, way, cond = self._prepare(images, label, options)
        x_0, passes = self.experiment.codec.encode(images), check_int("resample, the passes a step,", resample, 1)
        noise = self._noise(images, seed)
        filled = last(editing.inpaint(denoiser, way.process, x_0, mask, way.times, noise, passes, cond=cond))
        return torch.where(mask, self.experiment.codec.decode(filled), images)

    def vary(
        self,
        images: Tensor,
        strength: float = 0.5,
        label: int | Tensor | None = None,
        *,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        guidance_scale: float = 1.0,
        interval: tuple[float, float] = (0.0, 1.0),
        variance: str | None = None,
        clip: bool = True,
    ) -> Tensor:
        """Other images like these: degraded to t = strength in (0, 1] and drawn anew. SDEdit, Meng et al. (2022).

        The steps are even in t; by default as many as the sampler takes from there on.
        """
        images, strength = self._unit_range(images), check_strength(strength)
        options = SamplingOptions(sampler, None, guidance_scale, interval, variance, clip)
        denoiser, way, cond = self._prepare(images, label, options)
        most = way.process.timesteps and max(1, round(strength * way.process.timesteps))
        if steps is None:
            steps = min(max(1, round(strength * way.steps)), most or way.steps)
        steps = check_int(f"steps from t = {strength:g}", steps, 1, most)
        x_0, noise = self.experiment.codec.encode(images), self._noise(images, seed)
        states = editing.vary(denoiser, way.process, x_0, strength, steps, noise, way.loop, cond=cond)
        return self.experiment.codec.decode(last(states))

    def interpolate(
        self,
        first: Tensor | int,
        second: Tensor | int,
        count: int = 8,
        label: int | Tensor | None = None,
        *,
        steps: int = 50,
        guidance_scale: float = 1.0,
        interval: tuple[float, float] = (0.0, 1.0),
        clip: bool = True,
    ) -> Tensor:
        """`count` images (count, C, H, W) from the first to the second, on the arc between their noises, by DDIM.

        Each end is an image (C, H, W), which is inverted first, or a seed of noise.
        """
        self._needs_noise("an interpolation")
        count, labels = check_int("count, with both ends,", count, 2), label if label is None else as_tensor(label, "")
        options = SamplingOptions("ddim", steps, guidance_scale, interval, None, clip)
        of_end = lambda place: labels[place] if labels is not None and labels.shape == (count,) else label
        a, b = self._latent(first, of_end(0), options), self._latent(second, of_end(-1), options)
        x_1 = editing.interpolate(a, b, torch.linspace(0, 1, count, device=a.device))
        return self._ddim(x_1, label, options)

    def invert(
        self,
        images: Tensor,
        label: int | Tensor | None = None,
        *,
        steps: int = 50,
        refine: int = 2,
        guidance_scale: float = 1.0,
        interval: tuple[float, float] = (0.0, 1.0),
        clip: bool = True,
    ) -> Tensor:
        """The noise x_1 (B, C, H, W) from which DDIM draws these images; `refine` corrections a step."""
        options = SamplingOptions("ddim", steps, guidance_scale, interval, None, clip)
        return self._invert(images, label, options, refine)

    def reconstruct(
        self,
        images: Tensor,
        label: int | Tensor | None = None,
        *,
        steps: int = 50,
        refine: int = 2,
        guidance_scale: float = 1.0,
        interval: tuple[float, float] = (0.0, 1.0),
        clip: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """(images, error): inverted and sampled again, and the RMSE (B,) of that in units of [0, 1]."""
        options = SamplingOptions("ddim", steps, guidance_scale, interval, None, clip)
        back = self._ddim(self._invert(images, label, options, refine), label, options)
        return back, (back - self._unit_range(images)).square().mean((1, 2, 3)).sqrt()

    def _noise(self, images: Tensor, seed: int) -> Noise:
        seed = fold_in(check_int("a seed", seed, 0))
        return Noise(seed, torch.arange(len(images), device=images.device))

    def _prepare(
        self, images: Tensor, label: int | Tensor | None, options: SamplingOptions
    ) -> tuple[Callable[..., Tensor], Sampler, Tensor | None]:
        way, denoiser = build_sampler(self.experiment, options), guided_denoiser(self.experiment, options)
        return denoiser, way, optional_labels(self.experiment, images, label, options)

    def _needs_noise(self, what: str) -> None:
        if self.experiment.config.process != "gaussian":
            raise UserError(f"{what} needs a model of Gaussian noise; this one is cold: it has vary, and restore")

    def _ddim(self, x_1: Tensor, label: int | Tensor | None, options: SamplingOptions) -> Tensor:
        denoiser, way, cond = self._prepare(x_1, label, options)
        return self.experiment.codec.decode(last(way.loop(denoiser, way.process, x_1, way.times, cond=cond)))

    def _invert(self, images: Tensor, label: int | Tensor | None, options: SamplingOptions, refine: int) -> Tensor:
        self._needs_noise("the way to the noise of a picture")
        images = self._unit_range(images)
        denoiser, way, cond = self._prepare(images, label, options)
        if way.steps < 2:
            raise UserError(f"the way to the noise of a picture takes 2 steps or more, not {way.steps}")
        x_0, refine = self.experiment.codec.encode(images), check_int("refine, the corrections a step,", refine, 0)
        return last(editing.invert(denoiser, way.process, x_0, way.times, refine, cond=cond))

    def _latent(self, end: Tensor | int, label: int | Tensor | None, options: SamplingOptions) -> Tensor:
        device = device_of(self.experiment)
        if getattr(end, "ndim", 0) == 0:
            like = torch.empty(1, *self.experiment.config.shape, device=device)
            seed = check_int("a seed", end, 0)
            return self.experiment.process.prior(like, Noise(seed, torch.zeros(1, device=device)))[0]
        return self._invert(as_tensor(end, "an image")[None], label, options, 2)[0]

    def _unit_range(self, images: Tensor) -> Tensor:
        images = check_images(images, self.experiment)
        return images / 255 if images.dtype == torch.uint8 else images
