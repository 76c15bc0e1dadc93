"""The border of the library: what people hand in, checked once and turned into tensors; UserError for the rest."""

import math
from typing import Any

import torch
from torch import Tensor

from diffusion.api.generation import check_labels
from diffusion.errors import UserError
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import SamplingOptions

SLACK = 1e-3  # by which pixels may leave [0, 1]: they are put back


def device_of(experiment: Experiment) -> torch.device:
    return next(experiment.denoiser.parameters()).device


def as_tensor(values: Any, what: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{what} must be a tensor, or as good as one, not {type(values).__name__}") from None


def check_images(images: Any, experiment: Experiment) -> Tensor:
    """Images (B, C, H, W) on the experiment's device, uint8 or floats in [0, 1]."""
    images, shape = as_tensor(images, "images"), experiment.config.shape
    if images.ndim != 4 or tuple(images.shape[1:]) != shape or not len(images):
        raise UserError(f"images of shape {tuple(images.shape)}: this model needs (B, {', '.join(map(str, shape))})")
    if images.is_floating_point():
        if not ((images >= -SLACK) & (images <= 1 + SLACK)).all():
            low, high = images.min().item(), images.max().item()
            raise UserError(f"images are uint8, or floats from 0 to 1; these go from {low:g} to {high:g}")
        images = images.clamp(0, 1)
    elif images.dtype != torch.uint8:
        raise UserError(f"images are uint8, or floats from 0 to 1, not {images.dtype}")
    return images.to(device_of(experiment))


def check_state(x_t: Any, experiment: Experiment) -> Tensor:
    """A state x_t (B, C, H, W) of the process, floats on the experiment's device."""
    shape, x_t = experiment.config.shape, as_tensor(x_t, "x_t")
    if x_t.ndim != 4 or tuple(x_t.shape[1:]) != shape or not len(x_t) or not x_t.is_floating_point():
        expected = f"(B, {', '.join(map(str, shape))})"
        raise UserError(f"x_t is floats of shape {expected}, not {x_t.dtype} of shape {tuple(x_t.shape)}")
    return x_t.to(device_of(experiment))


def check_time(t: Any, count: int, device: torch.device) -> Tensor:
    """Times (count,) float64, of one for all or one for each."""
    try:
        t = torch.as_tensor(t, dtype=torch.float64, device=device)
    except (TypeError, ValueError, RuntimeError):
        t = torch.tensor(torch.nan)
    if t.shape not in ((), (count,)) or not ((t >= 0) & (t <= 1)).all():
        what = "t is one time in [0, 1] or one for each image: 0 clean, 1 fully degraded, 0.5 is step 500 of 1000"
        raise UserError(f"{what}; not {t.tolist()}")
    return t.expand(count)


def check_mask(mask: Any, images: Tensor) -> Tensor:
    """A mask (H, W) or (B or 1, 1, H, W) of 0 and 1 for images (B, C, H, W), as bool (B or 1, 1, H, W)."""
    mask = as_tensor(mask, "a mask")
    mask = mask[None, None] if mask.ndim == 2 else mask
    b, _, h, w = images.shape
    if mask.ndim != 4 or len(mask) not in (1, b) or mask.shape[1:] != (1, h, w):
        shape = ", ".join(map(str, mask.shape))
        raise UserError(f"a mask for these images has the shape ({b} or 1, 1, {h}, {w}), not ({shape})")
    if not ((mask == 0) | (mask == 1)).all():
        raise UserError("a mask holds only 1 (fill this pixel) and 0 (keep it)")
    return mask.bool()


def check_strength(value: Any) -> float:
    """A time in (0, 1], at which a picture is a little degraded at least."""
    try:
        strength = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        strength = math.nan
    if not 0 < strength <= 1:
        raise UserError(f"strength is a time above 0 (which would keep the picture) and up to 1, not {value!r}")
    return strength


def optional_labels(experiment: Experiment, images: Tensor, label: Any, options: SamplingOptions) -> Tensor | None:
    """The labels (B,) of these images, None if none is given; UserError for guidance without a label."""
    if label is not None:
        return check_labels(experiment, torch.arange(len(images), device=images.device), label)
    if options.guidance_scale != 1:
        raise UserError("guidance needs a label to go by: give one, or leave the guidance scale at 1")
    return None
