"""What a request asks the networks for: images drawn, varied, filled in, or between two others."""

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion.api.checks import check_gaussian
from diffusion.api.editor import Editor, inpainting_sampler, variation_sampler
from diffusion.api.generation import guidance_scale, guided_denoiser, trajectory
from diffusion.experiment.build import Experiment
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.sampling import Sampler, build_sampler
from diffusion.method.denoiser import Cond, Denoise
from diffusion.method.sampler import last

Ask = Callable[..., Tensor]  # (x, t, cond) -> the network's output, answered by the batcher


class State(NamedTuple):
    """Where a sampler stands."""

    x_t: Tensor  # (B, C, H, W) in [0, 1]
    x_0: Tensor  # what the guided denoiser believes is behind it, in [0, 1]
    t: float
    nfe: int  # network calls so far, of an image

    @property
    def at(self) -> Tensor:
        """t as schedules take it, () float64."""
        return torch.tensor(self.t, dtype=torch.float64)


def remote(experiment: Experiment, ask: Ask) -> Experiment:
    """The experiment, its network's calls answered by somebody else."""
    denoiser = copy.copy(experiment.denoiser)
    vars(denoiser)["predict"] = ask
    return replace(experiment, denoiser=denoiser)


@dataclass(kw_only=True)
class Task:
    """`compute` gives the images (count, C, H, W) in [0, 1] of the task, or of several with an equal key together."""

    experiment: Experiment
    options: SamplingOptions
    count: int
    watch: Callable[[State], object] | None = None  # called with its own part of each state

    @property
    def guided(self) -> bool:
        """Whether each step takes two rows an image."""
        return guidance_scale(self.experiment, self.options) not in (0, 1)

    @property
    def rows(self) -> int:
        """Of a network call."""
        return self.count * (2 if self.guided else 1)

    @property
    def sampler(self) -> Sampler:
        """UserError for what cannot be done."""
        return build_sampler(self.experiment, self.options)

    @property
    def calls(self) -> int:
        """Network calls an image."""
        return self.sampler.nfe

    @property
    def cost(self) -> int:
        """Image-calls: images × network calls, twice as many with guidance."""
        return self.rows * self.calls

    def times(self) -> list[float]:
        """The times that `watch` is told of, and the 0 at their end."""
        return list(dict.fromkeys(self.sampler.times.tolist()))

    @property
    def key(self) -> Hashable:
        """Tasks of equal keys can be computed together; None: this one goes alone."""
        return None

    def compute(self, ask: Ask, mates: Sequence["Task"]) -> Tensor:
        """All images of the mates (itself among them), in their order."""
        raise NotImplementedError


class Watched:
    """Makes a sampler's denoiser: its network calls are asked for, its estimates shown to the tasks that watch.

    Of several calls at one t (Heun's second, a repetition of an inpainting) only the last is shown: that step was kept.
    """

    def __init__(self, ask: Ask, mates: Sequence[Task]):
        self.ask, self.mates, self.watching = ask, mates, any(task.watch for task in mates)
        self.state: State | None = None
        self.nfe = 0

    def __call__(self, experiment: Experiment, options: SamplingOptions) -> Denoise:
        denoiser = guided_denoiser(remote(experiment, self.ask), options)
        decode = experiment.codec.decode

        def watched(x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
            x_0 = denoiser(x_t, t, cond)
            self.nfe += 1
            if self.state and self.state.t != float(t):
                self.show()
            self.state = State(decode(x_t), decode(x_0), float(t), self.nfe)
            return x_0

        return watched if self.watching else denoiser

    def show(self) -> None:
        """The last state, to each task its own part of it."""
        if self.state is None:
            return
        sizes = [task.count for task in self.mates]
        for task, x_t, x_0 in zip(self.mates, self.state.x_t.split(sizes), self.state.x_0.split(sizes)):
            if task.watch:
                task.watch(self.state._replace(x_t=x_t, x_0=x_0))


@dataclass(kw_only=True)
class Generation(Task):
    """New images."""

    seeds: Tensor  # (count,) int64
    index: Tensor  # (count,) which sample of its seed each is
    labels: Tensor | None  # (count,), or the words (count, length) of captions

    @property
    def key(self) -> Hashable:
        return id(self.experiment), self.options

    def compute(self, ask: Ask, mates: Sequence["Generation"]) -> Tensor:
        watched = Watched(ask, mates)
        index, seed = (torch.cat([getattr(task, name) for task in mates]) for name in ("index", "seeds"))
        labels = None if self.labels is None else torch.cat([task.labels for task in mates])
        given = {"seed": seed, "labels": labels, "make_denoiser": watched, "decode": False}
        x_0 = last(trajectory(self.experiment, index, self.options, **given))
        watched.show()
        return self.experiment.codec.decode(x_0)


@dataclass(kw_only=True)
class Edit(Task):
    """What is done to images that somebody hands in; one label for all, or none."""

    label: int | str | None
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """The options, as the editor takes them."""
        names = ("steps", "guidance_scale", "negative_prompt", "interval", "clip")
        return {name: getattr(self.options, name) for name in names}

    def edit(self, editor: Editor) -> Tensor:
        raise NotImplementedError

    def compute(self, ask: Ask, mates: Sequence[Task]) -> Tensor:
        watched = Watched(ask, mates)
        images = self.edit(Editor(self.experiment, watched))
        watched.show()
        return images


@dataclass(kw_only=True)
class Variation(Edit):
    """Degraded to t = strength and brought back."""

    images: Tensor  # (count, C, H, W) in [0, 1]
    strength: float

    @property
    def sampler(self) -> Sampler:
        return variation_sampler(self.experiment, self.options, self.strength)

    def edit(self, editor: Editor) -> Tensor:
        given = self.settings | {"sampler": self.options.sampler, "seed": self.seed}
        return editor.vary(self.images, self.strength, self.label, **given)


@dataclass(kw_only=True)
class Inpainting(Edit):
    """Filled in where the mask is 1."""

    images: Tensor  # (count, C, H, W) in [0, 1]
    mask: Tensor  # (H, W)
    resample: int

    @property
    def sampler(self) -> Sampler:
        return inpainting_sampler(self.experiment, self.options)

    @property
    def calls(self) -> int:
        return (self.sampler.steps - 1) * self.resample + 1

    def edit(self, editor: Editor) -> Tensor:
        given = self.settings | {"sampler": self.options.sampler, "seed": self.seed, "resample": self.resample}
        return editor.inpaint(self.images, self.mask, self.label, **given)


@dataclass(kw_only=True)
class Interpolation(Edit):
    """`count` images from the first of two ends to the second, by DDIM; an end is an image or a seed of noise."""

    ends: tuple[Tensor | int, Tensor | int]

    @property
    def sampler(self) -> Sampler:
        check_gaussian(self.experiment, "an interpolation")
        return build_sampler(self.experiment, self.options)

    @property
    def cost(self) -> int:  # for each end and step an estimate and two corrections
        return (self.count + 2 * 3) * self.sampler.steps * (2 if self.guided else 1)

    def edit(self, editor: Editor) -> Tensor:
        return editor.interpolate(*self.ends, self.count, self.label, **self.settings)


@dataclass(kw_only=True)
class Classification(Task):
    """What a classifier takes images for: (count, labels) probabilities, without any network call."""

    images: Tensor
    classifier: Callable[[Tensor], Tensor]

    @property
    def cost(self) -> int:
        return self.count

    @torch.no_grad()
    def compute(self, ask: Ask, mates: Sequence[Task]) -> Tensor:
        return self.classifier(self.images).softmax(1)
