"""From what a request says to a task that can be done: all checks, each with its field."""

import secrets
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffusion.api.checks import check_gaussian
from diffusion.api.generation import guided_denoiser
from diffusion.errors import unknown
from diffusion.experiment.samplers import ALWAYS, AS_SAVED, SAMPLERS, SamplingOptions
from diffusion.experiment.sampling import sampler_name
from diffusion.serving import conditions
from diffusion.serving.catalogue import Catalogue, Served
from diffusion.serving.problems import Problem, at
from diffusion.serving.schemas import EditRequest, GenerationRequest, SamplingFields
from diffusion.serving.settings import Settings
from diffusion.serving.tasks import Classification, Edit, Generation, Inpainting, Interpolation, Task, Variation


@dataclass(frozen=True)
class Order:
    """A task, and what the reply tells about it."""

    served: Served
    task: Task
    seed: int
    index: list[int]
    labels: list[int | None]
    sampler: str
    steps: int

    def names(self) -> list[str | None]:
        return [None if label is None else self.served.labels[label] for label in self.labels]


def options_of(
    request: SamplingFields, served: Served, settings: Settings, usual: str | None = None
) -> SamplingOptions:
    """The options of sampling; Problem for those that this model or this server does not take."""
    if request.size not in (None, "auto", size := "{1}x{0}".format(*served.shape[1:])):
        raise Problem(
            422, f"{served.name} draws {size} pixels: size is that or auto, not {request.size!r}", param="size"
        )
    check_count(request.n or 1, settings)
    if request.probabilities and served.looks_through is None:
        raise Problem(422, f"no classifier knows what {served.name} draws", param="probabilities")
    if None not in (request.steps, request.num_inference_steps) and request.steps != request.num_inference_steps:
        raise Problem(422, "steps and num_inference_steps say the same: give one of them", param="num_inference_steps")
    steps = request.steps or request.num_inference_steps
    if steps and steps > settings.max_steps:
        raise Problem(422, f"steps is at most {settings.max_steps} here, not {steps}", param="steps")
    experiment, scale = served.model.experiment, request.guidance_scale
    with at("interval"):
        interval = ALWAYS if request.interval is None else (request.interval[0], request.interval[1])
        SamplingOptions(interval=interval)
    if scale not in (None, 1) and not experiment.config.conditional:
        why = f"{served.name} knows no labels, so there is nothing to guide: leave guidance_scale out"
        raise Problem(422, why, param="guidance_scale")
    with at("sampler"):
        if request.sampler not in (None, *(known := SAMPLERS[experiment.config.process])):
            raise unknown("sampler", request.sampler, known)
    given = {"guidance_scale": scale, "interval": interval, "negative_prompt": request.negative_prompt or None}
    options = SamplingOptions(request.sampler or usual, steps, **given)
    with at("negative_prompt" if request.negative_prompt else "sampler"):
        guided_denoiser(experiment, options)
    return options


def check_count(count: int, settings: Settings) -> None:
    if count > settings.max_count:
        raise Problem(422, f"n is at most {settings.max_count} here, not {count}", param="n")


def generation(request: GenerationRequest, catalogue: Catalogue, settings: Settings) -> Order:
    """New images."""
    served, count = catalogue.find(request.model), request.n or 1
    options, experiment, first = options_of(request, served, settings), served.model.experiment, request.index or 0
    if not experiment.process.has_prior:
        raise Problem(422, f"{served.name} can only restore images, not draw new ones", param="model")
    index = torch.arange(first, first + count, device=experiment.device)
    cond, labels, ignored = conditions.of_generation(request, served, index)
    if ignored:
        options = replace(options, guidance_scale=0.0)
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed
    seeds = torch.full((count,), seed, device=experiment.device)
    task = Generation(experiment=experiment, options=options, count=count, seeds=seeds, index=index, labels=cond)
    return finished(served, task, seed, index.tolist(), labels)


def edit(
    request: EditRequest, images: list[Tensor], mask: Tensor | None, catalogue: Catalogue, settings: Settings
) -> Order:
    """Images filled in where a mask says so; without one, varied. Of one image, n of them."""
    served, count = catalogue.find(request.model), request.n or len(images)
    check_count(count, settings)
    if mask is not None:
        with at("model"):
            check_gaussian(served.model.experiment, "a mask")
    options = options_of(request, served, settings, None if mask is None else "ddpm")
    if len(images) not in (1, count):
        raise Problem(422, f"n is 1 or as many as images, {len(images)}, unless there is one image", param="n")
    given = edit_settings(request, served, options, count)
    stacked = torch.stack(images * (count // len(images))).to(served.model.device)
    if mask is None:
        strength = 0.5 if request.strength is None else request.strength
        task: Edit = Variation(images=stacked, strength=strength, **given)
    else:
        if request.strength is not None:
            raise Problem(422, "strength goes without a mask: what the mask covers is drawn anew", param="strength")
        task = Inpainting(images=stacked, mask=mask.to(stacked.device), resample=request.resample or 10, **given)
    return edited(served, task)


def interpolation(
    request: EditRequest, first: Tensor | int, second: Tensor | int, catalogue: Catalogue, settings: Settings
) -> Order:
    """A strip of n images from the first end to the second."""
    served, count = catalogue.find(request.model), request.n or min(8, settings.max_count)
    with at("model"):
        check_gaussian(served.model.experiment, "an interpolation")
    if request.sampler not in (None, "ddim"):
        raise Problem(422, f"an interpolation goes by ddim alone, not by {request.sampler!r}", param="sampler")
    if count < 2:
        raise Problem(422, "n is at least 2, with both ends", param="n")
    options = options_of(request, served, settings, "ddim")
    given = edit_settings(request, served, options, count)
    return edited(served, Interpolation(ends=(first, second), **given))


def classification(served: Served, images: list[Tensor]) -> Classification:
    """What the data set's classifier takes an image for."""
    if len(images) > 1:
        raise Problem(422, f"one image at a time, not {len(images)}", param="image")
    if served.looks_through is None:
        raise Problem(422, f"no classifier knows what {served.name} draws", param="model")
    stacked, experiment = torch.stack(images).to(served.model.device), served.model.experiment
    given = {"options": AS_SAVED, "count": len(images), "images": stacked}
    return Classification(experiment=experiment, classifier=served.looks_through, **given)


def edit_settings(request: EditRequest, served: Served, options: SamplingOptions, count: int) -> dict[str, Any]:
    """What all edits have in common."""
    label = conditions.of_edit(request, served)
    if label is None and not options.guidance_scale:  # 0 is how an unconditional one is asked for, too
        options = replace(options, guidance_scale=1.0)
    if label is None and options.guidance_scale != 1:
        raise Problem(422, "guidance needs a label to go by: give one, or leave guidance_scale out", param="label")
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed
    return {"experiment": served.model.experiment, "options": options, "count": count, "label": label, "seed": seed}


def edited(served: Served, task: Edit) -> Order:
    labels = [task.label if isinstance(task.label, int) else None] * task.count
    return finished(served, task, task.seed, list(range(task.count)), labels)


def finished(served: Served, task: Task, seed: int, index: list[int], labels: list[int | None]) -> Order:
    """The order, once what only the whole task can say is checked, too."""
    with at("sampler" if task.options.steps is None else "steps"):
        steps, sampler = task.sampler.steps, sampler_name(served.model.experiment, task.options)
    return Order(served, task, seed, index, labels, sampler, steps)
