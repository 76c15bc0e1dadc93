"""An experiment is what a Config describes, built: codec, process, denoiser. And its weight file."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion import checkpoint, coursework
from diffusion.codec import Pixels
from diffusion.config import Config, checked
from diffusion.denoiser import Denoiser, GaussianDenoiser
from diffusion.errors import UserError, unknown
from diffusion.networks import CNN
from diffusion.noise import Noise
from diffusion.process import Gaussian, Process
from diffusion.sampler import sample
from diffusion.schedule import build_schedule

FORMAT = "cold_dif_model 1"
SAMPLERS = {"ddpm": 1.0, "ddim": 0.0}  # name -> eta


@dataclass
class Experiment:
    """The parts of a Config; `about` holds what its weight file said (epoch, whose weights, scores)."""

    config: Config
    codec: Pixels
    process: Process
    denoiser: Denoiser
    about: dict[str, Any]

    def to(self, device: torch.device | str) -> "Experiment":
        for part in (self.codec, self.process, self.denoiser):
            part.to(device)
        return self


def build(config: Config) -> Experiment:
    """An untrained experiment; its first weights are a function of config.seed, the global generator is left alone."""
    schedule = build_schedule(config.schedule, config.timesteps, config.beta_min, config.beta_max)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = CNN(config.shape, config.hidden, config.activation)
    denoiser = GaussianDenoiser(network, schedule, config.target, loss=config.loss, precision=config.precision)
    process = Gaussian(schedule, variance=config.variance)
    return Experiment(config, Pixels(*config.pixel_range), process, denoiser.eval(), {})


def sampling(experiment: Experiment, sampler: str = "ddpm", steps: int | None = None, variance: str | None = None):
    """The process and the times of a named sampler; all T steps for ddpm and 50 for ddim unless told."""
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    process = Gaussian(experiment.process.schedule, SAMPLERS[sampler], variance or experiment.config.variance)
    most = process.timesteps or 1000
    return process, process.times((most if sampler == "ddpm" else min(50, most)) if steps is None else steps)


def trajectory(experiment: Experiment, index: Tensor, seed: int = 0, **how: Any) -> Iterator[Tensor]:
    """Every state, from x_1 down to x_0, of the samples `index` (B,): images (B, C, H, W) in [0, 1].

    Sample i of a seed is the same whatever else is in the batch. `how` is for `sampling`.
    """
    process, times = sampling(experiment, **how)
    noise = Noise(seed, index)
    x_1 = process.prior(torch.empty(len(index), *experiment.config.shape, device=index.device), noise)
    yield experiment.codec.decode(x_1)
    yield from map(experiment.codec.decode, sample(experiment.denoiser, process, x_1, times, noise))


def degraded(experiment: Experiment, images: Tensor, t: Tensor, seed: int = 0) -> Tensor:
    """Images (B, C, H, W), uint8 or in [0, 1], degraded to times t, () or (B,); back in [0, 1]."""
    noise = Noise(seed, torch.arange(len(images), device=images.device))
    x_0, decode = experiment.codec.encode(images), experiment.codec.decode
    return decode(experiment.process.degrade(x_0, t.to(images.device), noise))


def save_weights(path: Path, experiment: Experiment, **about: Any) -> Path:
    """Write config, weights and what is known `about` them (epoch, holds, scores) to one file, atomically."""
    state = experiment.denoiser.network.state_dict()
    content = {"format": FORMAT, "config": asdict(experiment.config), "network": state, "about": about}
    return checkpoint.save(path, content)


def load_weights(path: Path) -> Experiment:
    """The experiment in a weight file, ours or the coursework's; on the CPU, ready to sample.

    Raises UserError with one sentence when the file is missing, cut short, of another kind or another architecture.
    """
    content = checkpoint.load(path)
    if coursework.is_coursework(content):
        config, epoch, network = coursework.read(content, Path(path).stem)
        about = {"epoch": epoch, "holds": "raw", "scores": {}}
    elif isinstance(content, dict) and content.get("format") == FORMAT:
        config, network, about = checked(content["config"]), content["network"], content["about"]
    else:
        raise UserError(f"{str(path)!r} is not a weight file of a diffusion model")
    experiment = build(config)
    try:
        experiment.denoiser.network.load_state_dict(network)
    except RuntimeError as error:
        wrong = str(error).splitlines()[1].strip() if "\n" in str(error) else error
        raise UserError(f"the weights in {str(path)!r} do not fit the network they name: {wrong}") from None
    experiment.about = about
    return experiment


def find_weights(name: str, folders: Iterable[Path]) -> Path:
    """The file of that path, or of that name (with or without .pth) in one of the folders."""
    if Path(name).is_file():
        return Path(name)
    known = {path.stem: path for folder in folders for path in sorted(Path(folder).glob("*.pth"))}
    stem = Path(name).name.removesuffix(".pth")
    if "/" in name or stem not in known:
        raise unknown("weight file", name, sorted(known))
    return known[stem]
