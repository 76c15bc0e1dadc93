"""The library in one object: a model to sample from, to look into and to edit images with."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.api.editor import SAMPLING, Editor, check_images, check_options, told
from diffusion.api.generation import generate, guided_denoiser, trajectory
from diffusion.errors import UserError, check_int
from diffusion.experiment.build import Experiment, build
from diffusion.experiment.config import Config, checked
from diffusion.experiment.samplers import build_sampler
from diffusion.experiment.weights import find_weights, load_weights
from diffusion.method.likelihood import bits_per_dim, dequantise, log_likelihood
from diffusion.method.noise import Noise, fold_in

FOLDERS = (Path("weights"), Path(__file__).parents[3] / "weights")


class Model:
    """Images are (B, C, H, W) float32 in [0, 1]; x_t and noise are in the process's own units; t is in [0, 1].

    Everything drawn is a function of `seed`: sample i of a seed is the same image whatever else is drawn with it.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment

    @property
    def config(self) -> Config:
        return self.experiment.config

    @property
    def device(self) -> torch.device:
        return next(self.experiment.denoiser.parameters()).device

    def to(self, device: torch.device | str) -> "Model":
        try:
            self.experiment.to(device)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise UserError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from None
        return self

    def sample(self, count: int = 16, label: int | Tensor | None = None, seed: int = 0,
               batch_size: int | None = None, **how: Any) -> Tensor:  # fmt: skip
        """New images (count, C, H, W).

        `label` is one for all or (count,) of them; of a model that knows labels, None draws 0, 1, 2, … in turn. `how`:
        `guidance_scale` (0 ignores the label, 1 follows it, more exaggerates it), `interval` of times that are guided,
        `sampler` ("ddpm", "ddim", "heun", "dpm", "sde"; of cold models "alg2", "alg1", "pinned", "direct"), `steps`,
        `clip`.
        Raises UserError for a label, a sampler or a number of steps that there is not.
        """
        check_options(how, "label", "seed", "batch_size")
        return generate(self.experiment, self._index(count), seed, labels=label, batch_size=batch_size, **how)

    def trajectory(self, count: int = 8, label: int | Tensor | None = None, seed: int = 0,
                   snapshots: int | None = None, **how: Any) -> Tensor:  # fmt: skip
        """States on the way of `sample` (snapshots, count, C, H, W): noise first, the finished image last.

        They are evenly spaced, six of them or, where there are fewer, all.
        """
        check_options(how, "label", "seed", "snapshots")
        most = len(build_sampler(self.experiment, **{key: how[key] for key in how if key in SAMPLING}).times)
        snapshots = min(6, most) if snapshots is None else check_int("snapshots", snapshots, 2, most)
        at = torch.linspace(0, most - 1, snapshots).round().tolist()
        states = enumerate(trajectory(self.experiment, self._index(count), seed, labels=label, **how))
        return torch.stack([state for i, state in states if i in at])

    def forward_diffusion(self, images: Tensor, t: float | Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """(x_t, noise), both of the images' shape: images degraded to time t, one or (B,), and the noise in it.

        t = 0.5 is half way: step 500 of 1000. Of a cold model, the noise is what was drawn: it is added without its
        means over the averaged lines, which stay as they are.
        """
        images, draws = check_images(images, self.experiment), []
        t, source = self._time(t, len(images)), Noise(fold_in(seed), torch.arange(len(images), device=self.device))

        def noise(like: Tensor) -> Tensor:
            draws.append(source(like))
            return draws[-1]

        x_t = self.experiment.process.degrade(self.experiment.codec.encode(images), t, noise)
        return x_t, draws[0] if draws else torch.zeros_like(x_t)  # zeros: a process that adds none

    def restore(self, images: Tensor, label: int | Tensor | None = None, seed: int = 0,
                batch_size: int | None = None, **how: Any) -> Tensor:  # fmt: skip
        """Images (B, C, H, W) degraded all the way and brought back, the rest as in `sample`.

        A cold model has their averages to go by; of a Gaussian one nothing is left, and it draws new images.
        """
        check_options(how, "label", "seed", "batch_size")
        images = check_images(images, self.experiment)
        index = torch.arange(len(images), device=self.device)
        return generate(self.experiment, index, fold_in(seed), images, label, batch_size, **how)

    @torch.no_grad()
    def denoise(self, x_t: Tensor, t: float | Tensor, label: int | Tensor | None = None, **how: Any) -> Tensor:
        """The images that the model sees behind x_t, its estimate of x_0; without a label it is told none."""
        return self.experiment.codec.decode(self._x_0(x_t, t, label, **how))

    @torch.no_grad()
    def predict_noise(self, x_t: Tensor, t: float | Tensor, label: int | Tensor | None = None, **how: Any) -> Tensor:
        """The noise eps that the model sees in x_t, of x_t's shape, whatever its network regresses; t is above 0."""
        schedule = getattr(self.experiment.process, "schedule", None)
        if schedule is None:
            raise UserError("a cold model predicts images, not noise: use denoise")
        x_t = self._state(x_t)
        alpha, sigma = (each.float().reshape(-1, 1, 1, 1) for each in schedule(self._time(t, len(x_t))))
        if (sigma == 0).any():
            raise UserError("at t = 0 there is no noise to be seen: t must be above 0")
        return (x_t - alpha * self._x_0(x_t, t, label, **how | {"clip": False})) / sigma

    def bits_per_dim(self, images: Tensor, label: int | Tensor | None = None, steps: int = 50, seed: int = 0,
                     probes: int = 1) -> Tensor:  # fmt: skip
        """How many bits a pixel of these images costs, (B,), by the model's likelihood of them; at most, on average.

        uint8, or in [0, 1] and rounded to 256 levels; each level is spread over its bin. Song et al. (2021b). With
        fewer steps it is overestimated: digits cost 0.3 bits more in 10 steps, 0.01 in 50, than in 200.
        """
        images = check_images(images, self.experiment)
        levels = images if images.dtype == torch.uint8 else (images * 255).round().byte()
        index = torch.arange(len(images), device=self.device)
        cond = told(self.experiment, images, label, {})
        noise, codec = Noise(fold_in(seed), index), self.experiment.codec
        x_0 = codec.encode(dequantise(levels, noise))
        denoiser = guided_denoiser(self.experiment, clip=False)
        nats = log_likelihood(denoiser, self.experiment.process, x_0, steps, noise, probes, **cond)
        return bits_per_dim(nats, x_0[0].numel(), (codec.high - codec.low) / 256)

    def decode(self, x: Tensor) -> Tensor:
        """Any state x of the process as images to look at."""
        return self.experiment.codec.decode(x)

    @property
    def edit(self) -> Editor:
        """Inpainting, variations, interpolation, inversion."""
        return Editor(self.experiment)

    def _index(self, count: int) -> Tensor:
        return torch.arange(check_int("the number of samples", count, 1), device=self.device)

    def _state(self, x_t: Tensor) -> Tensor:
        """x_t on the model's device; UserError if it is no state of its process."""
        shape = self.config.shape
        try:
            x_t = torch.as_tensor(x_t, device=self.device)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"x_t is a tensor of floats (B, {', '.join(map(str, shape))})") from None
        if x_t.ndim != 4 or tuple(x_t.shape[1:]) != shape or not len(x_t) or not x_t.is_floating_point():
            raise UserError(f"x_t is floats of shape (B, {', '.join(map(str, shape))}), not {x_t.dtype} of shape "
                            f"{tuple(x_t.shape)}")  # fmt: skip
        return x_t

    def _x_0(self, x_t: Tensor, t: float | Tensor, label: int | Tensor | None, **how: Any) -> Tensor:
        x_t = self._state(x_t)
        denoiser = guided_denoiser(self.experiment, **how)
        return denoiser(x_t, self._time(t, len(x_t)), **told(self.experiment, x_t, label, how))

    def _time(self, t: float | Tensor, count: int) -> Tensor:
        try:
            t = torch.as_tensor(t, dtype=torch.float64, device=self.device)
        except (TypeError, ValueError, RuntimeError):
            t = torch.tensor(torch.nan)
        if t.shape not in ((), (count,)) or not ((t >= 0) & (t <= 1)).all():
            raise UserError("t is one time in [0, 1] or one for each image: 0 clean, 1 fully degraded, "
                            f"0.5 is step 500 of 1000; not {t.tolist()}")  # fmt: skip
        return t.expand(count)


def load(name: str, device: torch.device | str = "cpu") -> Model:
    """The model in a weight file: a path, or the name of one in weights/ or runs/*/. UserError if there is none."""
    return Model(load_weights(find_weights(name, [*FOLDERS, *sorted(Path("runs").glob("*"))]))).to(device)


def configure(**settings: Any) -> Model:
    """An untrained model of a Config's settings: `configure(schedule="cosine", target="v", shape=(3, 32, 32))`."""
    return Model(build(checked(asdict(Config()) | settings)))
