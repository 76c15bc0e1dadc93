"""The models that are served, by name, and the classifiers that look at their digits."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.api.generation import guidance_scale
from diffusion.api.model import Model
from diffusion.errors import UserError, unknown
from diffusion.experiment.samplers import AS_SAVED, SAMPLERS
from diffusion.experiment.sampling import build_sampler, sampler_name
from diffusion.experiment.weights import find_weights, load_weights, weight_folders, weight_names
from diffusion.files import shipped_weights
from diffusion.networks import classifier
from diffusion.serving.labels import label_names
from diffusion.serving.problems import Problem

FIRST = ("unet", "unet_fashion", "cold_unet row", "cold_unet col", "default")  # the first is the default


@dataclass(frozen=True)
class Served:
    """A model and what is told about it."""

    name: str
    model: Model
    created: int  # when its file was written, Unix seconds
    looks_through: classifier.Classifier | None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.model.config.shape

    @cached_property
    def labels(self) -> list[str]:
        return label_names(self.model.config)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> list[list[float]]:
        """What the data set's classifier takes images (B, C, H, W) in [0, 1] for: B lists of a probability a label."""
        if self.looks_through is None:
            raise UserError(f"no classifier knows what {self.name!r} draws: leave the probabilities out")
        shares = self.looks_through(images).softmax(1)
        return [[round(share, 4) for share in row] for row in shares.tolist()]

    @property
    def family(self) -> str:
        return self.name.partition("@")[0]

    def entry(self) -> dict[str, Any]:
        """What is told about it in GET /v1/models."""
        config, experiment = self.model.config, self.model.experiment
        sampler, steps = sampler_name(experiment, AS_SAVED), build_sampler(experiment).steps
        return {
            "id": self.name,
            "created": self.created,
            "object": "model",
            "owned_by": "diffusion",
            "kind": config.process,
            "axis": config.axis if config.process == "averaging" else None,
            "dataset": config.dataset,
            "shape": list(config.shape),
            "labels": self.labels,
            "samplers": list(SAMPLERS[config.process]),
            "defaults": {"sampler": sampler, "steps": steps, "guidance_scale": guidance_scale(experiment, AS_SAVED)},
            "prompts": config.reads,
            "words": list(config.words[1:]),
            "examples": [str(each) for each in experiment.about.get("examples", ())],
            "timesteps": experiment.process.timesteps,
            "classifier": self.looks_through is not None,
            "family": self.family,
            "epoch": experiment.about.get("epoch"),
        }


class Catalogue:
    """Models by all their names. A request chooses from these: none of its words is ever taken for a path."""

    def __init__(self, served: Iterable[Served], aliases: dict[str, str]):
        self.by_name = {each.name: each for each in served}
        self.aliases = aliases

    def __iter__(self) -> Iterator[Served]:
        return iter(self.by_name.values())

    def entry(self, served: Served) -> dict[str, Any]:
        """Its line in GET /v1/models."""
        epochs = [each.model.experiment.about.get("epoch") for each in self if each.family == served.family]
        return served.entry() | {"epochs": sorted(int(epoch) for epoch in epochs if epoch is not None)}

    def find(self, name: str | None) -> Served:
        """The model of that name, by default the first; Problem 404 with the nearest name if there is none."""
        if name is None:
            return next(iter(self))
        if found := self.by_name.get(self.aliases.get(name, name)):
            return found
        raise Problem(404, str(unknown("model", name, self.by_name)), param="model", code="model_not_found")


def load_catalogue(names: Iterable[str], device: torch.device) -> Catalogue:
    """The models of these weight files or names of such; of none, all that are shipped and draw. Seconds."""
    if chosen := list(names):
        folders = weight_folders()
        files: dict[str, Path] = {}
        for name, path in zip(chosen, (find_weights(name, folders) for name in chosen)):
            called = Path(name).stem if name.endswith(".pth") else name
            if files.setdefault(called, path) != path:
                raise UserError(f"{str(files[called])!r} and {str(path)!r} would both be served as {called!r}")
        return Catalogue(_load(files, device, skip=False), {})
    known = {name: path for name, (path, *_) in weight_names([shipped_weights()]).items()}
    called = {path: min((name for name in known if known[name] == path), key=len) for path in known.values()}
    place = lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), _by_epoch(name))
    files = {name: path for path, name in sorted(called.items(), key=lambda each: place(each[1]))}
    return Catalogue(_load(files, device, skip=True), {name: called[path] for name, path in known.items()})


def _by_epoch(name: str) -> tuple[str, int]:
    family, _, epoch = name.partition("@")
    return family, int(epoch) if re.fullmatch(r"\d+", epoch) else 0


def _load(files: dict[str, Path], device: torch.device, skip: bool) -> Iterator[Served]:
    """The models of files by their names. An autoencoder draws nothing: it is skipped, or UserError."""
    seen: dict[str, classifier.Classifier | None] = {}
    for name, path in files.items():
        model = Model(load_weights(path)).to(device)
        config = model.config
        if config.is_codec:
            if skip:
                continue
            raise UserError(f"{name!r} is an autoencoder, which draws nothing: serve a model of its latents")
        if config.process == "averaging" or device.type != "cpu":  # what differs between batches in the last bit only
            model.experiment.denoiser.bf16 = False  # would be rounded up here and down there, and grow to 10 / 255
        model.experiment.denoiser = model.experiment.denoiser.for_sampling()
        if config.dataset not in seen:
            file = shipped_weights() / f"classifier_{config.dataset}.pth"
            seen[config.dataset] = classifier.load(file)[0].to(device) if file.is_file() else None
        looks_through = seen[config.dataset]
        fits = looks_through is not None and looks_through.shape == config.shape
        yield Served(name, model, int(path.stat().st_mtime), looks_through if fits else None)
