"""Editing real images with a trained model: `model.edit`. Images are (B, C, H, W) in [0, 1]."""

from typing import Any

import torch
from torch import Tensor

from diffusion.api.generation import check_labels, guided_denoiser
from diffusion.errors import UserError, check_int, unknown
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import Way, build_sampler
from diffusion.method import editing
from diffusion.method.noise import Noise, fold_in
from diffusion.method.sampler import last

GUIDANCE, SAMPLING = ("guidance_scale", "interval", "clip"), ("sampler", "steps", "variance")  # what `how` may hold
SLACK = 1e-3  # by which pixels may leave [0, 1]: they are put back


class Editor:
    """Every method takes `label` (one, or one for each image; None: none is told) and `how`, as Model.sample does.

    Noise is drawn apart from that of sampling: what was sampled from a seed can be edited with the same.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment

    def inpaint(self, images: Tensor, mask: Tensor, label: int | Tensor | None = None, seed: int = 0,
                resample: int = 10, **how: Any) -> Tensor:  # fmt: skip
        """The images with new content where the mask (H, W) or (B or 1, 1, H, W) is 1; the rest is kept to the bit.

        Each step is taken `resample` times, that new and old may agree. RePaint, Lugmayr et al. (2022). The sampler
        is ddpm, unless told ddim.
        """
        self._needs_noise("filling in")
        images, mask = _tensor(images, "images"), _tensor(mask, "a mask")
        mask = mask[None, None] if mask.ndim == 2 else mask
        if mask.ndim == images.ndim == 4 and mask.shape[-2:] == images.shape[-2:] and len(mask) in (1, len(images)):
            images = images.masked_fill(mask.to(images.device) == 1, 0)  # what is there is never read
        images, mask = self._checked(images), mask.to(self._device)
        denoiser, way, cond = self._prepared(images, label, {"sampler": "ddpm"} | how, only=("ddpm", "ddim"))
        x_0 = self.experiment.codec.encode(images)
        noise = self._noise(images, seed)
        filled = last(editing.inpaint(denoiser, way.process, x_0, mask, way.times, noise, resample, **cond))
        return torch.where(mask.bool(), self.experiment.codec.decode(filled), images)

    def vary(self, images: Tensor, strength: float = 0.5, label: int | Tensor | None = None, seed: int = 0,
             **how: Any) -> Tensor:  # fmt: skip
        """Other images like these: degraded to t = strength in (0, 1] and drawn anew. SDEdit, Meng et al. (2022).

        The steps are even in t; unless told, as many as the sampler takes over that part of the way.
        """
        images = self._checked(images)
        denoiser, way, cond = self._prepared(images, label, how)
        strength, steps = _strength(strength), how.get("steps")
        if steps is None:
            least = lambda whole: max(1, round(strength * whole))
            steps = min(least(len(way.times) - 1), least(way.process.timesteps or len(way.times)))
        x_0, noise = self.experiment.codec.encode(images), self._noise(images, seed)
        states = editing.vary(denoiser, way.process, x_0, strength, steps, noise, way.loop, **cond)
        return self.experiment.codec.decode(last(states))

    def interpolate(self, first: Tensor | int, second: Tensor | int, count: int = 8,
                    label: int | Tensor | None = None, steps: int = 50, **how: Any) -> Tensor:  # fmt: skip
        """`count` images (count, C, H, W) from the first to the second, on the arc between their noises.

        Each end is an image (C, H, W), which is inverted first, or a seed of noise.
        """
        self._needs_noise("an interpolation")
        count, how = check_int("count, with both ends,", count, 2), {"sampler": "ddim"} | how | {"steps": steps}
        labels = None if label is None else _tensor(label, "labels")
        each = labels is not None and labels.shape == (count,)
        ends = [self._latent(end, labels[place] if each else label, how) for end, place in ((first, 0), (second, -1))]
        x_1 = editing.interpolate(*ends, torch.linspace(0, 1, count))
        denoiser, way, cond = self._prepared(x_1, label, how, only=("ddim",))
        return self.experiment.codec.decode(last(way.loop(denoiser, way.process, x_1, way.times, **cond)))

    def invert(self, images: Tensor, label: int | Tensor | None = None, steps: int = 50, refine: int = 2,
               **how: Any) -> Tensor:  # fmt: skip
        """The noise x_1 (B, C, H, W) that DDIM makes these images of; `refine` corrections a step."""
        self._needs_noise("the way to the noise of a picture")
        images = self._checked(images)
        how = {"sampler": "ddim"} | how | {"steps": steps}
        denoiser, way, cond = self._prepared(images, label, how, only=("ddim",))
        x_0 = self.experiment.codec.encode(images)
        return last(editing.invert(denoiser, way.process, x_0, way.times, refine, **cond))

    def reconstruct(self, images: Tensor, label: int | Tensor | None = None, steps: int = 50, refine: int = 2,
                    **how: Any) -> tuple[Tensor, Tensor]:  # fmt: skip
        """(images, error): taken to their noise and back, and the RMSE (B,) of that in units of [0, 1]."""
        x_1 = self.invert(images, label, steps, refine, **how)
        images, how = self._checked(images), {"sampler": "ddim"} | how | {"steps": steps}
        denoiser, way, cond = self._prepared(images, label, how)
        back = self.experiment.codec.decode(last(way.loop(denoiser, way.process, x_1, way.times, **cond)))
        return back, (back - images).square().mean((1, 2, 3)).sqrt()

    @property
    def _device(self) -> torch.device:
        return next(self.experiment.denoiser.parameters()).device

    def _noise(self, images: Tensor, seed: int) -> Noise:
        return Noise(fold_in(seed), torch.arange(len(images), device=self._device))

    def _prepared(self, images: Tensor, label: int | Tensor | None, how: dict,
                  only: tuple[str, ...] = ()) -> tuple[Any, Way, dict[str, Tensor]]:  # fmt: skip
        """The denoiser, the way back by one of the samplers named in `only`, and the conditions."""
        check_options(how)
        if only and how["sampler"] not in only:
            raise UserError(f"this goes by {' or '.join(only)} alone, not by {how['sampler']!r}")
        guidance = {key: how[key] for key in how if key in GUIDANCE}
        way = build_sampler(self.experiment, **{key: how[key] for key in how if key in SAMPLING})
        denoiser = guided_denoiser(self.experiment, **guidance)
        return denoiser, way, told(self.experiment, images, label, how)

    def _needs_noise(self, what: str) -> None:
        if self.experiment.config.process != "gaussian":
            raise UserError(f"{what} needs a model of Gaussian noise; this one is cold: it has vary, and restore")

    def _latent(self, end: Tensor | int, label: int | Tensor | None, how: dict) -> Tensor:
        if getattr(end, "ndim", 0) == 0:
            like = torch.empty(1, *self.experiment.config.shape, device=self._device)
            return self.experiment.process.prior(like, Noise(end, torch.zeros(1, device=self._device)))[0]
        return self.invert(_tensor(end, "an image")[None], label, **how)[0]

    def _checked(self, images: Tensor) -> Tensor:
        images = check_images(images, self.experiment)
        return images / 255 if images.dtype == torch.uint8 else images


def check_options(how: dict[str, Any], *own: str) -> None:
    """UserError for a word in `how` that neither guidance nor sampling knows; `own` are those of the method itself."""
    for key in how:
        if key not in (*GUIDANCE, *SAMPLING):
            raise unknown("option", key, (*own, *GUIDANCE, *SAMPLING))


def told(experiment: Experiment, images: Tensor, label: int | Tensor | None, how: dict) -> dict[str, Tensor]:
    """What the denoiser is told of these images; UserError if it is to be guided to a label without one."""
    if label is None:
        if how.get("guidance_scale", 1) != 1:
            raise UserError("guidance needs a label to go by: give one, or leave the guidance scale at 1")
        return {}
    return check_labels(experiment, torch.arange(len(images), device=images.device), label)


def check_images(images: Tensor, experiment: Experiment) -> Tensor:
    """The images on the experiment's device, uint8 or floats in [0, 1]; UserError if they are none for its network."""
    images, shape = _tensor(images, "images"), experiment.config.shape
    if images.ndim != 4 or tuple(images.shape[1:]) != shape or not len(images):
        raise UserError(f"images of shape {tuple(images.shape)}: this model needs (B, {', '.join(map(str, shape))})")
    if images.is_floating_point():
        if not ((images >= -SLACK) & (images <= 1 + SLACK)).all():
            low, high = images.min().item(), images.max().item()
            raise UserError(f"images are uint8, or floats from 0 to 1; these go from {low:g} to {high:g}")
        images = images.clamp(0, 1)
    elif images.dtype != torch.uint8:
        raise UserError(f"images are uint8, or floats from 0 to 1, not {images.dtype}")
    return images.to(next(experiment.denoiser.parameters()).device)


def _tensor(values: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{what} must be a tensor, or as good as one, not {type(values).__name__}") from None


def _strength(value: Any) -> float:
    """The strength as a float; UserError if it is no time at which a picture is a little degraded at least."""
    try:
        strength = torch.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        strength = torch.nan
    if not 0 < strength <= 1:
        raise UserError(f"strength is a time above 0 (which would keep the picture) and up to 1, not {value!r}")
    return strength
