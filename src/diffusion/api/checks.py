"""The border of the library: what people hand in, checked once and turned into tensors; UserError for the rest."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion.errors import Failure, UserError
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import SamplingOptions
from diffusion.method.arrays import as_images, as_labels, as_tensor, check_pixels
from diffusion.method.codec import Pixels, Shape
from diffusion.method.process import Gaussian

Prompt = str | Sequence[str] | None  # one for all samples, or one for each
Label = int | Tensor | Prompt  # the same (B,); a text model has prompts for labels
Time = float | Tensor  # the same
NO_PROMPTS = "these weights read no prompts: choose those of a text model, such as text_digits"
SLACK = 1e-3  # by which pixels may leave [0, 1]: they are put back
TIME = "t is one time in [0, 1] or one for each image: 0 clean, 1 fully degraded, 0.5 is step 500 of 1000"


def check_batch(batch: Tensor, what: str, experiment: Experiment, shape: Shape) -> Tensor:
    """A batch (B, C, H, W) of images or states of that shape, on the experiment's device."""
    if tuple(batch.shape[1:]) != shape or not len(batch):
        raise UserError(f"{what} of shape {tuple(batch.shape)}: this model needs (B, {', '.join(map(str, shape))})")
    return batch.to(experiment.device)


def check_images(images: Any, experiment: Experiment) -> Tensor:
    """Images (B, C, H, W), uint8 or floats in [0, 1], on the experiment's device."""
    images = check_batch(as_images(images), "images", experiment, experiment.config.shape)
    check_pixels(images, SLACK)
    return images.clamp(0, 1) if images.is_floating_point() else images


def check_state(x_t: Any, experiment: Experiment) -> Tensor:
    """A state x_t (B, C, H, W) of the process, floats on the experiment's device."""
    x_t = as_tensor(x_t, "x_t must be a tensor, or as good as one")
    x_t = check_batch(x_t, "x_t", experiment, experiment.codec.shape)
    if not x_t.is_floating_point():
        raise UserError(f"x_t holds floats, not {x_t.dtype}")
    return x_t


def check_time(t: Any, like: Tensor) -> Tensor:
    """Times (B,) float64 for a batch `like` (B, …), of one for all or one for each."""
    t = as_tensor(t, TIME, torch.float64).to(like.device)
    if t.shape not in ((), (len(like),)) or not ((t >= 0) & (t <= 1)).all():
        raise UserError(f"{TIME}; not {t.tolist()}")
    return t.expand(len(like))


def check_result(x: Tensor) -> Tensor:
    """What a network has computed, whatever it is; Failure if any of it is NaN or infinite."""
    if not x.isfinite().all():
        raise Failure("the result came out as NaN or infinite: nothing to look at")
    return x


def check_mask(mask: Any, images: Tensor) -> Tensor:
    """A mask (H, W) or (B or 1, 1, H, W) of 0 and 1 for images (B, C, H, W), as bool (B or 1, 1, H, W)."""
    mask = as_tensor(mask, "a mask must be a tensor, or as good as one").to(images.device)
    mask = mask[None, None] if mask.ndim == 2 else mask
    b, _, h, w = images.shape
    if mask.shape not in ((1, 1, h, w), (b, 1, h, w)):
        raise UserError(f"a mask for these images has the shape ({b} or 1, 1, {h}, {w}), not {tuple(mask.shape)}")
    if not ((mask == 0) | (mask == 1)).all():
        raise UserError("a mask holds only 1 (fill this pixel) and 0 (keep it)")
    return mask.bool()


def check_labels(experiment: Experiment, index: Tensor, labels: Label = None) -> Tensor | None:
    """The labels (B,) int64 of the samples `index` (B,), one for all or one for each; by default 0, 1, 2, … in turn.

    Of a text model, the words (B, length) of captions, by default of none. None for an unconditional model; UserError
    for labels that the network does not know.
    """
    if experiment.reader:
        return check_captions(experiment, "" if labels is None else labels, len(index)).to(index.device)
    classes = experiment.config.classes
    if labels is None:
        return index % classes if classes else None
    if not classes:
        raise UserError("these weights know no labels: leave the label out")
    rule = f"a label is an integer from 0 to {classes - 1}"
    cond = as_labels(labels, rule).to(index.device)
    if cond.shape not in ((), (1,), (len(index),)):
        raise UserError(f"{len(index)} images need one label or {len(index)}, not labels of shape {tuple(cond.shape)}")
    if (cond >= classes).any():
        raise UserError(f"{rule}, not {' '.join(repr(labels).split()):.40}")
    return cond.expand(len(index))


def check_captions(experiment: Experiment, prompts: Any, count: int) -> Tensor:
    """The words (count, length) int64 of one prompt for all or one for each: texts, or the numbers of their words.

    UserError for a word that the model has not learnt, with the nearest, and for a number of prompts that does not fit.
    """
    reader = experiment.reader
    if not reader:
        raise UserError(NO_PROMPTS)
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if isinstance(prompts, Tensor) and prompts.shape[1:] == (reader.length,) and prompts.dtype == torch.int64:
        rows = prompts
    elif isinstance(prompts, Sequence) and all(isinstance(each, str) for each in prompts):
        rows = reader.encode(prompts)
    else:
        raise UserError(f"a prompt is a text, or one text for each image, not {' '.join(repr(prompts).split()):.40}")
    if len(rows) not in (1, count) or not ((rows >= 0) & (rows < reader.size)).all():
        raise UserError(f"{count} images need one prompt or {count}, not {len(rows)}")
    return rows.expand(count, -1)


def label_or_prompt(experiment: Experiment, label: Label, prompt: Prompt) -> Label:
    """The one that is given; UserError if both are, or for a prompt that nobody can read."""
    if label is not None and prompt is not None:
        raise UserError("a sample has a label or a prompt, not both")
    if prompt is not None and not experiment.reader:
        raise UserError(NO_PROMPTS)
    return label if prompt is None else prompt


def optional_labels(experiment: Experiment, count: int, label: Label, options: SamplingOptions) -> Tensor | None:
    """The labels (count,) of images, None if none is given; UserError for guidance without a label."""
    if label is not None:
        return check_labels(experiment, torch.arange(count, device=experiment.device), label)
    if options.guidance_scale not in (None, 1):
        raise UserError("guidance needs a label to go by: give one, or leave the guidance scale at 1")
    return None


def check_on_pixels(experiment: Experiment, what: str) -> Pixels:
    """The experiment's codec; UserError, for `what` is done to pixels, if the process works on latents."""
    if not isinstance(experiment.codec, Pixels):
        raise UserError(f"{what} needs a model of pixels; this one works on {experiment.codec.shape[0]} latents")
    return experiment.codec


def check_gaussian(experiment: Experiment, what: str) -> Gaussian:
    """The experiment's process; UserError, for `what` needs one of Gaussian noise, if it is another."""
    if not isinstance(experiment.process, Gaussian):
        raise UserError(f"{what} needs a model of Gaussian noise; this one is cold: use denoise, restore or edit.vary")
    return experiment.process
