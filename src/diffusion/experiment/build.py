"""An experiment is what a Config describes, built: codec, process, denoiser. And its weight file."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffusion import files
from diffusion.errors import UserError, unknown
from diffusion.experiment import coursework
from diffusion.experiment.config import Config, checked
from diffusion.method.averaging import Averaging, line_order
from diffusion.method.codec import Pixels
from diffusion.method.denoiser import Denoiser, GaussianDenoiser
from diffusion.method.process import Gaussian, Process
from diffusion.method.schedule import build_schedule
from diffusion.networks.unet import CNN, UNet

FORMAT = "cold_dif_model 1"


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _network(config)
    process, denoiser = {"gaussian": _gaussian, "averaging": _averaging}[config.process](config, network)
    return Experiment(config, Pixels(*config.pixel_range), process, denoiser.eval(), {})


def _network(config: Config) -> nn.Module:
    if config.network == "unet":
        if len(config.hidden) != 2 or any(width % 8 for width in config.hidden):
            raise UserError(f"hidden of a unet is two widths, multiples of 8, not {list(config.hidden)}")
        if any(side % 2 for side in config.shape[1:]):
            raise UserError(f"a unet needs images of even height and width, not of shape {config.shape}")
        return UNet(config.shape, config.hidden, config.classes)
    if config.classes:
        raise UserError("network 'cnn' cannot be told labels: use unet, or classes 0")
    return CNN(config.shape, config.hidden, config.activation)


def _gaussian(config: Config, network: nn.Module) -> tuple[Process, Denoiser]:
    schedule = build_schedule(config.schedule, config.timesteps, config.beta_min, config.beta_max)
    denoiser = GaussianDenoiser(network, schedule, config.target, loss=config.loss, precision=config.precision)
    return Gaussian(schedule, variance=config.variance, training_times=config.draw_time), denoiser


def _averaging(config: Config, network: nn.Module) -> tuple[Process, Denoiser]:
    lines = config.shape[{"row": 1, "col": 2}[config.axis]]
    if lines % config.timesteps:
        raise UserError(f"{lines} lines do not divide into {config.timesteps} groups of equal size")
    order = line_order(config.order, lines, config.seed).reshape(config.timesteps, -1)
    process = Averaging(config.axis, order, noise=config.noise, channels=config.shape[0])
    return process, Denoiser(network, loss=config.loss, precision=config.precision)


def save_weights(path: Path, experiment: Experiment, half: bool = False, **about: Any) -> Path:
    """Write config, weights and what is known `about` them (epoch, holds, scores) to one file, atomically.

    `half` stores the network in half precision, for a file of half the size; it loads as float32.
    """
    network, process = experiment.denoiser.network.state_dict(), experiment.process.state_dict()
    if half:
        network = {name: value.half() if value.is_floating_point() else value for name, value in network.items()}
    content = {"format": FORMAT, "config": asdict(experiment.config), "network": network, "process": process}
    content["about"] = about
    return files.save(path, content)


def load_weights(path: Path) -> Experiment:
    """The experiment in a weight file, ours or the coursework's; on the CPU, ready to sample.

    Raises UserError with one sentence when the file is missing, cut short, of another kind or another architecture.
    """
    content = files.load(path)
    if coursework.is_coursework(content):
        content = coursework.read(content, Path(path).stem)
    elif not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is not a weight file of a diffusion model")
    try:
        experiment = build(checked(content["config"]))
        experiment.denoiser.network.load_state_dict(content["network"])
        experiment.process.load_state_dict({**experiment.process.state_dict(), **content.get("process", {})})
        experiment.about = content["about"]
    except (RuntimeError, KeyError) as error:
        wrong = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise UserError(f"the weights in {str(path)!r} do not fit the network they name: {wrong}") from None
    return experiment


def find_weights(name: str, folders: Iterable[Path]) -> Path:
    """The file of that path, or of that name (with or without .pth) in one of the folders."""
    name = str(name)
    if Path(name).is_file():
        return Path(name)
    found = [path for folder in folders for path in sorted(Path(folder).glob("*.pth"))]
    known = {path.stem: path for path in found if not path.stem.startswith("classifier_")}
    stem = Path(name).name.removesuffix(".pth")
    if "/" in name or stem not in known:
        raise unknown("weight file", name, sorted(known))
    return known[stem]
