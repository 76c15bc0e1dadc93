"""The library in one object: a model to sample from, to look into and to edit images with."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion.config import Config, checked
from diffusion.editor import Editor, fitting
from diffusion.errors import UserError
from diffusion.experiment import Experiment, build, find_weights, load_weights
from diffusion.generation import answering, conditions, samples, trajectory
from diffusion.likelihood import bits_per_dim, dequantise, log_likelihood
from diffusion.noise import Noise

FOLDERS = (Path("weights"), Path(__file__).parents[2] / "weights")


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
        self.experiment.to(device)
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
        return samples(self.experiment, self._index(count), seed, labels=label, batch_size=batch_size, **how)

    def trajectory(self, count: int = 8, label: int | Tensor | None = None, seed: int = 0, snapshots: int = 6,
                   **how: Any) -> Tensor:  # fmt: skip
        """States on the way of `sample` (snapshots, count, C, H, W): noise first, the finished image last."""
        states = list(trajectory(self.experiment, self._index(count), seed, labels=label, **how))
        if not 2 <= snapshots <= len(states):
            raise UserError(f"snapshots must be from 2 to {len(states)}, not {snapshots}")
        at = torch.linspace(0, len(states) - 1, snapshots).round().long()
        return torch.stack([states[i] for i in at])

    def forward_diffusion(self, images: Tensor, t: float | Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        """(x_t, noise), both of the images' shape: images degraded to time t, one or (B,), and the noise in it.

        t = 0.5 is half way: step 500 of 1000.
        """
        t, draws = self._time(t, len(images)), []
        source = Noise(seed, torch.arange(len(images), device=self.device))

        def noise(like: Tensor) -> Tensor:
            draws.append(source(like))
            return draws[-1]

        x_t = self.experiment.process.degrade(self.experiment.codec.encode(fitting(images, self.experiment)), t, noise)
        return x_t, draws[0] if draws else torch.zeros_like(x_t)  # zeros: a process that adds none

    def restore(self, images: Tensor, seed: int = 0, **how: Any) -> Tensor:
        """Images (B, C, H, W) degraded all the way and brought back, `how` as in `sample`.

        A cold model has their averages to go by; of a Gaussian one nothing is left, and it draws new images.
        """
        images = fitting(images, self.experiment)
        index = torch.arange(len(images), device=self.device)
        return samples(self.experiment, index, seed, images, **how)

    @torch.no_grad()
    def denoise(self, x_t: Tensor, t: float | Tensor, label: int | Tensor | None = None, **how: Any) -> Tensor:
        """The images that the model sees behind x_t, its estimate of x_0; without a label it is told none."""
        return self.experiment.codec.decode(self._x_0(x_t, t, label, **how))

    @torch.no_grad()
    def predict_noise(self, x_t: Tensor, t: float | Tensor, label: int | Tensor | None = None) -> Tensor:
        """The noise eps that the model sees in x_t, of x_t's shape, whatever its network regresses."""
        t, schedule = self._time(t, len(x_t)), getattr(self.experiment.process, "schedule", None)
        if schedule is None:
            raise UserError("a cold model predicts images, not noise: use denoise")
        alpha, sigma = (each.float().reshape(-1, 1, 1, 1) for each in schedule(t))
        return (x_t - alpha * self._x_0(x_t, t, label, clip=False)) / sigma

    def bits_per_dim(self, images: Tensor, label: int | Tensor | None = None, steps: int = 50, seed: int = 0,
                     probes: int = 1) -> Tensor:  # fmt: skip
        """How many bits a pixel of these images costs, (B,), by the model's likelihood of them; at most, on average.

        uint8, or in [0, 1] and rounded to 256 levels; each level is spread over its bin. Song et al. (2021b).
        """
        images = fitting(images, self.experiment)
        levels = images if images.dtype == torch.uint8 else (images * 255).round().byte()
        index = torch.arange(len(images), device=self.device)
        cond = {} if label is None else conditions(self.experiment, index, label)
        noise, codec = Noise(seed, index), self.experiment.codec
        x_0 = codec.encode(dequantise(levels, noise))
        denoiser = answering(self.experiment, clip=False)
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
        if count < 1:
            raise UserError(f"the number of samples must be at least 1, not {count}")
        return torch.arange(count, device=self.device)

    def _x_0(self, x_t: Tensor, t: float | Tensor, label: int | Tensor | None, **how: Any) -> Tensor:
        index = torch.arange(len(x_t), device=self.device)
        cond = {} if label is None else conditions(self.experiment, index, label)
        return answering(self.experiment, **how)(x_t.to(self.device), self._time(t, len(x_t)), **cond)

    def _time(self, t: float | Tensor, count: int) -> Tensor:
        t = torch.as_tensor(t, dtype=torch.float64, device=self.device)
        if t.shape not in ((), (count,)) or not ((t >= 0) & (t <= 1)).all():
            raise UserError("t is one time in [0, 1] or one for each image: 0 clean, 1 fully degraded, "
                            f"0.5 is step 500 of 1000; not {t.tolist()}")  # fmt: skip
        return t.expand(count)


def load(name: str, device: torch.device | str = "cpu") -> Model:
    """The model in a weight file: a path, or the name of one in weights/ or runs/*/. UserError if there is none."""
    return Model(load_weights(find_weights(name, [*FOLDERS, *sorted(Path("runs").glob("*"))])).to(device))


def configure(**settings: Any) -> Model:
    """An untrained model of a Config's settings: `configure(schedule="cosine", target="v", shape=(3, 32, 32))`."""
    return Model(build(checked(asdict(Config()) | settings)))
