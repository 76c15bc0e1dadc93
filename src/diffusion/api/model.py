"""The library in one object: a model to sample from, to inspect and to edit images with."""

from collections.abc import Callable
from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec

import torch
from torch import Tensor

from diffusion.api.checks import (
    Label,
    Prompt,
    Time,
    check_gaussian,
    check_images,
    check_on_pixels,
    check_result,
    check_state,
    check_time,
    label_or_prompt,
    optional_labels,
)
from diffusion.api.editor import Editor
from diffusion.api.generation import generate, guided_denoiser, image_noise, trajectory
from diffusion.errors import UserError, check_int
from diffusion.experiment.build import Experiment, build
from diffusion.experiment.config import Config, checked
from diffusion.experiment.samplers import ALWAYS, Interval, SamplingOptions
from diffusion.experiment.sampling import build_sampler
from diffusion.experiment.weights import (
    begin_from_teacher,
    find_weights,
    load_weights,
    open_codec,
    open_text_encoder,
    save_weights,
    weight_folders,
)
from diffusion.method.arrays import as_tensor
from diffusion.method.likelihood import bits_per_dim, dequantise, flow_times, log_likelihood
from diffusion.method.noise import fold_in
from diffusion.precision import methods_with_torch_defaults


@methods_with_torch_defaults
class Model:
    """Images are (B, C, H, W) float32 in [0, 1]; x_t and noise are in the process's own units; t is in [0, 1].

    Everything drawn is a function of `seed`: sample i of a seed is the same image whatever else is drawn with it.
    The options of sampling are those of `SamplingOptions`; what is None is as the weights were saved.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment

    @property
    def config(self) -> Config:
        return self.experiment.config

    @property
    def device(self) -> torch.device:
        return self.experiment.device

    def to(self, device: torch.device | str) -> "Model":
        try:
            self.experiment.to(device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise UserError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None
        return self

    def sample(
        self,
        count: int = 16,
        label: Label = None,
        *,
        prompt: Prompt = None,
        negative_prompt: str | None = None,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        interval: Interval = ALWAYS,
        variance: str | None = None,
        clip: bool = True,
        batch_size: int | None = None,
    ) -> Tensor:
        """New images (count, C, H, W).

        `label` is one for all or (count,) of them; of a class-conditional model, None draws 0, 1, 2, … in turn.
        A text model takes a `prompt`, one or `count` of them, and leads away from the `negative_prompt`.
        `sampler` is "ddpm", "ddim", "heun", "dpm", "sde" or "consistency" (of distilled ones); of cold models
        "alg2", "alg1", "pinned", "direct" or "coursework", which never clips.
        `guidance_scale` 0 ignores the label, 1 follows it, more exaggerates it, at times within `interval`.
        UserError for a label, a word, a sampler or a number of steps that there is not.
        """
        options = SamplingOptions(sampler, steps, guidance_scale, interval, variance, clip, 0, negative_prompt)
        index, labels = self._index(count), label_or_prompt(self.experiment, label, prompt)
        return generate(self.experiment, index, options, seed=seed, labels=labels, batch_size=batch_size)

    def trajectory(
        self,
        count: int = 8,
        label: Label = None,
        *,
        prompt: Prompt = None,
        negative_prompt: str | None = None,
        seed: int = 0,
        snapshots: int | None = None,
        sampler: str | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        interval: Interval = ALWAYS,
        variance: str | None = None,
        clip: bool = True,
    ) -> Tensor:
        """Evenly spaced states of `sample` (snapshots, count, C, H, W), from noise to image; six, or all if fewer."""
        options = SamplingOptions(sampler, steps, guidance_scale, interval, variance, clip, 0, negative_prompt)
        most = build_sampler(self.experiment, options).steps + 1
        snapshots = min(6, most) if snapshots is None else check_int("snapshots", snapshots, 2, most)
        at = torch.linspace(0, most - 1, snapshots).round().tolist()
        labels = label_or_prompt(self.experiment, label, prompt)
        states = trajectory(self.experiment, self._index(count), options, seed=seed, labels=labels)
        return torch.stack([state for i, state in enumerate(states) if i in at])

    def forward_diffusion(self, images: Tensor, t: Time, seed: int = 0) -> tuple[Tensor, Tensor]:
        """(x_t, noise) of the images' shape: images degraded to time t, one or (B,), and the noise in it.

        t = 0.5 is step 500 of 1000. A cold model adds its noise, if any, without the means over the averaged lines.
        """
        images, process = check_images(images, self.experiment), self.experiment.process
        t, noise, x_0 = check_time(t, images), image_noise(images, seed), self.experiment.codec.encode(images)
        eps = noise(x_0) if process.adds_noise else torch.zeros_like(x_0)
        return process.degrade(x_0, t, eps), eps

    def restore(
        self,
        images: Tensor,
        label: Label = None,
        *,
        seed: int = 0,
        sampler: str | None = None,
        steps: int | None = None,
        guidance_scale: float = 1.0,
        interval: Interval = ALWAYS,
        variance: str | None = None,
        clip: bool = True,
        batch_size: int | None = None,
    ) -> Tensor:
        """Images (B, C, H, W) fully degraded and restored, the rest as in `sample`.

        A cold model starts from their averages; of a Gaussian model's images nothing is left, and it draws new ones.
        """
        options = SamplingOptions(sampler, steps, guidance_scale, interval, variance, clip)
        images, seed = check_images(images, self.experiment), fold_in(check_int("a seed", seed, 0))
        index = self._index(len(images))
        return generate(
            self.experiment, index, options, seed=seed, labels=label, originals=images, batch_size=batch_size
        )

    @torch.no_grad()
    def denoise(
        self,
        x_t: Tensor,
        t: Time,
        label: Label = None,
        *,
        guidance_scale: float = 1.0,
        interval: Interval = ALWAYS,
        clip: bool = True,
    ) -> Tensor:
        """The model's estimate of the images behind x_t; unconditional without a label."""
        options = SamplingOptions(guidance_scale=guidance_scale, interval=interval, clip=clip)
        return self.decode(self._x_0(x_t, t, label, options))

    @torch.no_grad()
    def predict_noise(
        self, x_t: Tensor, t: Time, label: Label = None, *, guidance_scale: float = 1.0, interval: Interval = ALWAYS
    ) -> Tensor:
        """The model's estimate of the noise eps in x_t, of x_t's shape, whatever its network regresses; t > 0."""
        schedule, x_t = check_gaussian(self.experiment, "noise").schedule, check_state(x_t, self.experiment)
        alpha, sigma = (v.float().reshape(-1, 1, 1, 1) for v in schedule(check_time(t, x_t)))
        if (sigma == 0).any():
            raise UserError("at t = 0 there is no noise: t must be above 0")
        options = SamplingOptions(guidance_scale=guidance_scale, interval=interval, clip=False)
        return (x_t - alpha * self._x_0(x_t, t, label, options)) / sigma

    def bits_per_dim(
        self, images: Tensor, label: Label = None, steps: int = 50, seed: int = 0, probes: int = 1
    ) -> Tensor:
        """Bits a pixel (B,) of images, by the model's likelihood (Song et al., 2021b): on average an upper bound.

        uint8, or rounded to 256 levels. Few steps overestimate: digits by 0.3 bits in 10, by 0.01 in 50, against 200.
        """
        process = check_gaussian(self.experiment, "a likelihood")
        codec = check_on_pixels(self.experiment, "bits a pixel")
        images, options = check_images(images, self.experiment), SamplingOptions(guidance_scale=1.0, clip=False)
        levels = images if images.dtype == torch.uint8 else (images * 255).round().byte()
        cond = optional_labels(self.experiment, len(images), label, options)
        steps, probes = check_int("steps of a likelihood", steps, 1), check_int("probes of the trace", probes, 1)
        if len(flow_times(process, steps)) < 2:
            raise UserError("a likelihood needs a process of two noise levels at least")
        in_float32 = replace(self.experiment, denoiser=self.experiment.denoiser.for_derivatives())
        denoiser, noise = guided_denoiser(in_float32, options), image_noise(images, seed)
        x_0 = codec.encode(dequantise(levels, noise))
        nats = log_likelihood(denoiser, process, x_0, steps, noise, probes, cond=cond)
        return bits_per_dim(check_result(nats), x_0[0].numel(), (codec.high - codec.low) / 256)

    def encode(self, images: Tensor) -> Tensor:
        """x_0 of images (B, C, H, W): their pixels in the range of the process, or their latents, standardised."""
        return self.experiment.codec.encode(check_images(images, self.experiment))

    def decode(self, x: Tensor) -> Tensor:
        """Any state x of the process as images to look at."""
        return self.experiment.codec.decode(as_tensor(x, "a state must be a tensor, or as good as one"))

    def save(self, path: str | Path, half: bool = False) -> Path:
        """Write the weights to a file that `load` reads; `half` in half precision, half as large."""
        return save_weights(Path(path), self.experiment, half)

    @property
    def edit(self) -> Editor:
        """Inpainting, variations, interpolation, inversion."""
        return Editor(self.experiment)

    def _index(self, count: int) -> Tensor:
        return torch.arange(check_int("the number of samples", count, 1), device=self.device)

    def _x_0(self, x_t: Tensor, t: Time, label: Label, options: SamplingOptions) -> Tensor:
        x_t = check_state(x_t, self.experiment)
        cond = optional_labels(self.experiment, len(x_t), label, options)
        return check_result(guided_denoiser(self.experiment, options)(x_t, check_time(t, x_t), cond=cond))


def load(name: str | Path, device: torch.device | str = "cpu", *, preset: str | None = None) -> Model:
    """The model in a weight file: a path, or a name such as "unet", "cold_unet row" or "default@20", of one that is
    shipped, or in weights/ or runs/*/. `preset` is that of a file of the coursework whose name does not say it.

    UserError if there is none, or if several have that name.
    """
    return Model(load_weights(find_weights(str(name), weight_folders()), preset)).to(device)


P = ParamSpec("P")


def _takes_the_keywords_of(settings: Callable[P, Config]) -> Callable[[Callable[..., Model]], Callable[P, Model]]:
    """Let editors, type checkers and help() show the fields of a Config where a function takes them."""

    def declare(function: Callable[..., Model]) -> Callable[P, Model]:
        function.__signature__ = signature(settings).replace(return_annotation=Model)  # type: ignore[attr-defined]
        return function

    return declare


@_takes_the_keywords_of(Config)
def configure(**settings: Any) -> Model:
    """An untrained model of a Config's settings: `configure(schedule="cosine", target="v", shape=(3, 32, 32))`."""
    config = checked(asdict(Config()) | settings)
    folders = weight_folders()
    untrained = build(config, codec=open_codec(config, folders), pretrained=open_text_encoder(config))
    return Model(begin_from_teacher(untrained, folders))
