"""What is to be drawn: from a label or a prompt to the condition of a network."""

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.api.checks import check_captions, check_labels
from diffusion.serving.catalogue import Served
from diffusion.serving.labels import NONE, find_label, read_prompt
from diffusion.serving.problems import Problem, at
from diffusion.serving.schemas import EditRequest, GenerationRequest, Label


class Condition(NamedTuple):
    cond: Tensor | None  # (n,) labels, or the words (n, length) of captions; None: the model knows neither
    labels: list[int | None]  # as the reply tells them
    ignored: bool = False  # "none" was asked for


def of_generation(request: GenerationRequest, served: Served, index: Tensor) -> Condition:
    """The condition of the samples `index` (n,): the label, or what the prompt says, or 0, 1, 2, … in turn."""
    experiment, names, nothing = served.model.experiment, served.labels, [None] * len(index)
    prompt = request.prompts or request.prompt or ""
    if not names:
        _refuse_label(request.label, served)
        if not experiment.config.reads:
            return Condition(None, nothing)
        with at("prompt"):
            return Condition(check_captions(experiment, prompt, len(index)).to(index.device), nothing)
    if _is_none(request.label, prompt):
        return Condition(check_labels(experiment, index), nothing, ignored=True)
    with at("prompt" if request.label is None else "label"):
        cond = check_labels(experiment, index, _labels(request.label, prompt, names))
    return Condition(cond, cond.tolist())


def _labels(given: Label | list[Label] | None, prompt: str | list[str], names: list[str]) -> Tensor | int | None:
    """One label for all, one for each, or None for any."""
    if given is not None:
        return (
            torch.tensor([find_label(k, names) for k in given]) if isinstance(given, list) else find_label(given, names)
        )
    if isinstance(prompt, str):
        return read_prompt(prompt, names)
    read = [read_prompt(each, names) for each in prompt]
    return torch.tensor([i % len(names) if label is None else label for i, label in enumerate(read)])


def of_edit(request: EditRequest, served: Served) -> int | str | None:
    """The one label or prompt of an edit, None for neither."""
    prompt = request.prompt or ""
    if not served.labels:
        _refuse_label(request.label, served)
        if not (prompt and served.model.config.reads):
            return None
        with at("prompt"):
            check_captions(served.model.experiment, prompt, 1)
        return prompt
    if _is_none(request.label, prompt):
        return None
    with at("prompt" if request.label is None else "label"):
        if request.label is None:
            return read_prompt(prompt, served.labels)
        return find_label(request.label, served.labels)


def _is_none(label: object, prompt: object) -> bool:
    return label == NONE or (label is None and isinstance(prompt, str) and prompt.strip().lower() == NONE)


def _refuse_label(label: object, served: Served) -> None:
    if label not in (None, NONE):
        raise Problem(422, f"{served.name} knows no labels: leave the label out", param="label")
