"""From what a request says to a task that can be done: all checks, each with its field."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion.api.checks import check_labels
from diffusion.errors import UserError, unknown
from diffusion.experiment.samplers import ALWAYS, AS_SAVED, SAMPLERS, SamplingOptions, build_sampler, sampler_name
from diffusion.serving import labels as words
from diffusion.serving.catalogue import Catalogue, Served
from diffusion.serving.problems import Problem
from diffusion.serving.schemas import EditRequest, GenerationRequest, SamplingFields
from diffusion.serving.settings import Settings
from diffusion.serving.tasks import Classification, Generation, Inpainting, Interpolation, Task, Variation


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


@contextmanager
def at(field: str) -> Iterator[None]:
    """Whatever is wrong inside is wrong with that field."""
    try:
        yield
    except UserError as error:
        raise Problem(422, str(error), param=field) from None


def options_of(
    request: SamplingFields, served: Served, settings: Settings, usual: str | None = None
) -> SamplingOptions:
    """The options of sampling; Problem for those that this model or this server does not take."""
    if request.size not in (None, "auto", size := "{1}x{0}".format(*served.shape[1:])):
        raise Problem(
            422, f"{served.name} draws {size} pixels: size is that or auto, not {request.size!r}", param="size"
        )
    if (request.n or 1) > settings.max_count:
        raise Problem(422, f"n is at most {settings.max_count} here, not {request.n}", param="n")
    if None not in (request.steps, request.num_inference_steps) and request.steps != request.num_inference_steps:
        raise Problem(422, "steps and num_inference_steps say the same: give one of them", param="num_inference_steps")
    steps = request.steps or request.num_inference_steps
    if steps and steps > settings.max_steps:
        raise Problem(422, f"steps is at most {settings.max_steps} here, not {steps}", param="steps")
    scale = 1.0 if request.guidance_scale is None else request.guidance_scale
    with at("interval"):
        interval = ALWAYS if request.interval is None else (request.interval[0], request.interval[1])
        SamplingOptions(interval=interval)
    with at("guidance_scale"):
        if scale != 1 and not served.labels:
            raise UserError(f"{served.name} knows no labels, so there is nothing to guide: leave guidance_scale out")
    with at("sampler"):
        if request.sampler not in (None, *(known := SAMPLERS[served.model.config.process])):
            raise unknown("sampler", request.sampler, known)
        options = SamplingOptions(request.sampler or usual, None, scale, interval)
        build_sampler(served.model.experiment, options)
    return SamplingOptions(options.sampler, steps, scale, interval)


def check_probabilities(request: SamplingFields, served: Served) -> None:
    if request.probabilities and served.looks_through is None:
        raise Problem(422, f"no classifier knows what {served.name} draws", param="probabilities")


def generation(request: GenerationRequest, catalogue: Catalogue, settings: Settings) -> Order:
    """New images."""
    served, count = catalogue.find(request.model), request.n or 1
    options = options_of(request, served, settings)
    check_probabilities(request, served)
    experiment, first = served.model.experiment, request.index or 0
    with at("steps"):
        steps = build_sampler(experiment, options).steps
    if not experiment.process.has_prior:
        raise Problem(422, f"{served.name} can only restore images, not draw new ones", param="model")
    index = torch.arange(first, first + count, device=experiment.device)
    labels, asked = labels_of(request, served, index)
    if asked is not None and not asked:  # "none"
        options = SamplingOptions(options.sampler, options.steps, 0.0, options.interval)
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed
    seeds = torch.full((count,), seed, device=experiment.device)
    task = Generation(experiment=experiment, options=options, count=count, seeds=seeds, index=index, labels=labels)
    told = [None] * count if labels is None or asked == [] else labels.tolist()
    sampler = sampler_name(experiment, options)
    return Order(served, task, seed, index.tolist(), told, sampler, steps)


def labels_of(request: GenerationRequest, served: Served, index: Tensor) -> tuple[Tensor | None, list[int] | None]:
    """The labels (n,) of new images; beside them the list that was asked for: None if none was, [] for "none"."""
    experiment, names, given = served.model.experiment, served.labels, request.label
    if not names:
        if given not in (None, words.NONE):
            raise Problem(422, f"{served.name} knows no labels: leave the label out", param="label")
        return None, None
    if given is None:
        with at("prompt"):
            given = words.NONE if (request.prompt or "").strip().lower() == words.NONE else None
            label = None if given else words.read_prompt(request.prompt or "", names)
        asked = [] if given else None if label is None else [label]
    elif given == words.NONE:
        asked = []
    else:
        with at("label"):
            asked = [words.find_label(each, names) for each in (given if isinstance(given, list) else [given])]
    with at("label"):
        chosen = torch.tensor(asked if len(asked) > 1 else asked[0]) if asked else None
        return check_labels(experiment, index, chosen), asked


def edit(
    request: EditRequest, images: list[Tensor], mask: Tensor | None, catalogue: Catalogue, settings: Settings
) -> Order:
    """Images filled in where a mask says so; without one, varied. Of one image, n of them."""
    served = catalogue.find(request.model)
    options = options_of(request, served, settings, None if mask is None else "ddpm")
    check_probabilities(request, served)
    count = request.n or len(images)
    if len(images) not in (1, count):
        raise Problem(422, f"n is 1 or as many as images, {len(images)}, unless there is one image", param="n")
    given = edit_settings(request, served, options, count)
    stacked = torch.stack(images * (count // len(images))).to(served.model.device)
    if mask is None:
        strength = 0.5 if request.strength is None else request.strength
        task: Task = Variation(images=stacked, strength=strength, **given)
    else:
        if request.strength is not None:
            raise Problem(422, "strength goes without a mask: what the mask covers is drawn anew", param="strength")
        task = Inpainting(images=stacked, mask=mask.to(stacked.device), resample=request.resample or 10, **given)
    return finished(served, task, given)


def interpolation(
    request: EditRequest, first: Tensor | int, second: Tensor | int, catalogue: Catalogue, settings: Settings
) -> Order:
    """A strip of n images from the first end to the second."""
    served = catalogue.find(request.model)
    if request.sampler not in (None, "ddim"):
        raise Problem(422, f"an interpolation goes by ddim alone, not by {request.sampler!r}", param="sampler")
    if request.n == 1:
        raise Problem(422, "n is at least 2, with both ends", param="n")
    options = options_of(request, served, settings, "ddim")
    given = edit_settings(request, served, options, request.n or 8)
    return finished(served, Interpolation(ends=(first, second), **given), given)


def classification(served: Served, images: list[Tensor]) -> Classification:
    """What the data set's classifier takes an image for."""
    if len(images) > 1:
        raise Problem(422, f"one image at a time, not {len(images)}", param="image")
    if served.looks_through is None:
        raise Problem(422, f"no classifier knows what {served.name} draws", param="model")
    stacked, experiment = torch.stack(images).to(served.model.device), served.model.experiment
    given = {"options": AS_SAVED, "count": len(images), "images": stacked}
    return Classification(experiment=experiment, classifier=served.looks_through, **given)


def edit_settings(request: EditRequest, served: Served, options: SamplingOptions, count: int) -> dict:
    """What all edits have in common."""
    asked = request.label if request.label is not None else None
    with at("label" if asked is not None else "prompt"):
        if not served.labels and asked not in (None, words.NONE):
            raise UserError(f"{served.name} knows no labels: leave the label out")
        if asked is None:
            prompt = request.prompt or ""
            label = None if prompt.strip().lower() == words.NONE else words.read_prompt(prompt, served.labels)
        else:
            label = None if asked == words.NONE else words.find_label(asked, served.labels)
    if options.guidance_scale != 1 and label is None:
        raise Problem(422, "guidance needs a label to go by: give one, or leave guidance_scale out", param="label")
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed
    return {"experiment": served.model.experiment, "options": options, "count": count, "label": label, "seed": seed}


def finished(served: Served, task: Task, given: dict) -> Order:
    """The order, once what only the whole task can say is checked, too."""
    count, field = given["count"], "sampler" if task.options.steps is None else "steps"
    with at(field):
        steps, sampler = task.sampler.steps, sampler_name(served.model.experiment, task.options)
    return Order(served, task, given["seed"], list(range(count)), [given["label"]] * count, sampler, steps)
