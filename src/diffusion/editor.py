"""Editing real images with a trained model: `model.edit`. Images are (B, C, H, W) in [0, 1]."""

from typing import Any

import torch
from torch import Tensor

from diffusion import editing
from diffusion.errors import UserError
from diffusion.experiment import Experiment
from diffusion.generation import Way, answering, conditions, sampling
from diffusion.noise import Noise
from diffusion.sampler import last

GUIDANCE = ("guidance_scale", "interval", "clip")  # the rest of `how` is for the sampler: sampler, steps, variance


class Editor:
    """Every method takes `label` (one, or one for each image; None: none is told) and `how`, as Model.sample does."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment

    def inpaint(self, images: Tensor, mask: Tensor, label: int | Tensor | None = None, seed: int = 0,
                resample: int = 10, **how: Any) -> Tensor:  # fmt: skip
        """The images with new content where the mask (H, W) or (B or 1, 1, H, W) is 1; the rest is kept to the bit.

        Each step is taken `resample` times, that new and old may agree. RePaint, Lugmayr et al. (2022).
        """
        images, mask = self._checked(images), torch.as_tensor(mask, device=self._device)
        mask = mask[None, None] if mask.ndim == 2 else mask
        denoiser, way, cond = self._prepared(images, label, {"sampler": "ddpm"} | how)
        x_0 = self.experiment.codec.encode(images)
        noise = self._noise(images, seed)
        filled = last(editing.inpaint(denoiser, way.process, x_0, mask, way.times, noise, resample, **cond))
        return torch.where(mask.bool(), self.experiment.codec.decode(filled), images)

    def vary(self, images: Tensor, strength: float = 0.5, label: int | Tensor | None = None, seed: int = 0,
             **how: Any) -> Tensor:  # fmt: skip
        """Other images like these: degraded to t = strength in (0, 1] and drawn anew. SDEdit, Meng et al. (2022)."""
        images = self._checked(images)
        denoiser, way, cond = self._prepared(images, label, how)
        steps = how.get("steps") or max(1, round(strength * (len(way.times) - 1)))
        x_0, noise = self.experiment.codec.encode(images), self._noise(images, seed)
        states = editing.vary(denoiser, way.process, x_0, strength, steps, noise, way.loop, **cond)
        return self.experiment.codec.decode(last(states))

    def interpolate(self, first: Tensor | int, second: Tensor | int, count: int = 8,
                    label: int | Tensor | None = None, steps: int = 50, **how: Any) -> Tensor:  # fmt: skip
        """`count` images (count, C, H, W) from the first to the second, on the arc between their noises.

        Each end is an image (C, H, W), which is inverted first, or a seed of noise.
        """
        if count < 2:
            raise UserError(f"an interpolation has at least its two ends: count must be 2 or more, not {count}")
        how |= {"sampler": "ddim", "steps": steps}
        ends = [self._latent(end, label, how) for end in (first, second)]
        x_1 = editing.interpolate(*ends, torch.linspace(0, 1, count))
        denoiser, way, cond = self._prepared(x_1, label, how)
        return self.experiment.codec.decode(last(way.loop(denoiser, way.process, x_1, way.times, **cond)))

    def invert(self, images: Tensor, label: int | Tensor | None = None, steps: int = 50, refine: int = 2,
               **how: Any) -> Tensor:  # fmt: skip
        """The noise x_1 (B, C, H, W) that DDIM makes these images of; `refine` corrections a step."""
        images = self._checked(images)
        denoiser, way, cond = self._prepared(images, label, how | {"sampler": "ddim", "steps": steps})
        x_0 = self.experiment.codec.encode(images)
        return last(editing.invert(denoiser, way.process, x_0, way.times, refine, **cond))

    def reconstruct(self, images: Tensor, label: int | Tensor | None = None, steps: int = 50, refine: int = 2,
                    **how: Any) -> tuple[Tensor, Tensor]:  # fmt: skip
        """(images, error): taken to their noise and back, and the RMSE (B,) of that in units of [0, 1]."""
        images, how = self._checked(images), how | {"sampler": "ddim", "steps": steps}
        x_1 = self.invert(images, label, steps, refine, **{key: how[key] for key in how if key in GUIDANCE})
        denoiser, way, cond = self._prepared(images, label, how)
        back = self.experiment.codec.decode(last(way.loop(denoiser, way.process, x_1, way.times, **cond)))
        return back, (back - images).square().mean((1, 2, 3)).sqrt()

    @property
    def _device(self) -> torch.device:
        return next(self.experiment.denoiser.parameters()).device

    def _noise(self, images: Tensor, seed: int) -> Noise:
        return Noise(seed, torch.arange(len(images), device=self._device))

    def _prepared(self, images: Tensor, label: int | Tensor | None, how: dict) -> tuple[Any, Way, dict[str, Tensor]]:
        """The denoiser, the way back and the conditions."""
        index = torch.arange(len(images), device=self._device)
        cond = {} if label is None else conditions(self.experiment, index, label)
        guidance = {key: how[key] for key in how if key in GUIDANCE}
        way = sampling(self.experiment, **{key: how[key] for key in how if key not in GUIDANCE})
        return answering(self.experiment, **guidance), way, cond

    def _latent(self, end: Tensor | int, label: int | Tensor | None, how: dict) -> Tensor:
        if isinstance(end, int):
            like = torch.empty(1, *self.experiment.config.shape, device=self._device)
            return self.experiment.process.prior(like, self._noise(like, end))[0]
        return self.invert(end[None], label, **{key: value for key, value in how.items() if key != "sampler"})[0]

    def _checked(self, images: Tensor) -> Tensor:
        images = fitting(images, self.experiment)
        return images / 255 if images.dtype == torch.uint8 else images


def fitting(images: Tensor, experiment: Experiment) -> Tensor:
    """The images on the experiment's device; UserError if their shape is not the one its network is made for."""
    shape = experiment.config.shape
    if images.ndim != 4 or tuple(images.shape[1:]) != shape:
        raise UserError(f"images of shape {tuple(images.shape)}: this model needs (B, {', '.join(map(str, shape))})")
    return images.to(next(experiment.denoiser.parameters()).device)
