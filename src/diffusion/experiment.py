"""An experiment is what a Config describes, built: codec, process, denoiser. And its weight file."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion import checkpoint, coursework
from diffusion.averaging import Averaging, line_order
from diffusion.codec import Pixels
from diffusion.config import Config, checked
from diffusion.denoiser import Clipped, Denoiser, GaussianDenoiser
from diffusion.errors import UserError, unknown
from diffusion.guidance import Guided
from diffusion.networks import CNN, UNet
from diffusion.noise import Noise
from diffusion.process import Gaussian, Process
from diffusion.sampler import heun, multistep, sample
from diffusion.schedule import build_schedule

FORMAT = "cold_dif_model 1"


class Sampler(NamedTuple):
    """A way back by name."""

    loop: Callable[..., Iterator[Tensor]]
    eta: float  # 0: nothing random but the start
    steps: int | None  # unless told; None is all there are
    grid: str | None = None  # of the times, where there is a choice


SAMPLERS: dict[str, dict[str, Sampler]] = {  # of each kind of process
    "gaussian": {
        "ddpm": Sampler(sample, 1.0, 100, "uniform"),  # Ho et al. (2020)
        "ddim": Sampler(sample, 0.0, 50, "uniform"),  # Song et al. (2021)
        "heun": Sampler(heun, 0.0, 10, "uniform"),  # Karras et al. (2022)
        "dpm": Sampler(multistep, 0.0, 20, "karras"),  # Lu et al. (2022)
        "sde": Sampler(multistep, 1.0, 20, "uniform"),  # its SDE form
    },
    "averaging": {  # Bansal et al. (2022)
        "alg2": Sampler(sample, 0.0, None),
        "alg1": Sampler(sample, 1.0, None),
        "direct": Sampler(sample, 1.0, 1),
    },
}


class Way(NamedTuple):
    """A way back from t = 1: `loop(denoiser, process, x, times, noise, **cond)` yields its states."""

    loop: Callable[..., Iterator[Tensor]]
    process: Process
    times: Tensor  # (steps + 1,) from 1 down to 0

    @property
    def calls(self) -> int:
        """Network calls for one sample."""
        steps = len(self.times) - 1
        return 2 * steps - 1 if self.loop is heun else steps


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


def sampling(
    experiment: Experiment, sampler: str | None = None, steps: int | None = None, variance: str | None = None
) -> Way:
    """The way back of a named sampler (None: the config's)."""
    known = SAMPLERS[experiment.config.process]
    if sampler is None:
        sampler = experiment.config.sampler
        steps = experiment.config.sampler_steps if steps is None else steps
    if sampler is None:  # noise in every degraded image is there to be drawn afresh
        sampler = "alg1" if experiment.config.process == "averaging" and experiment.config.noise else next(iter(known))
    if sampler not in known:
        raise unknown("sampler", sampler, known)
    process = copy.copy(experiment.process)
    way = known[sampler]
    process.eta = way.eta
    if variance:
        process.variance = variance
    most = process.timesteps or 1000
    steps = min(way.steps or most, most) if steps is None else steps
    grid = [way.grid] if way.grid else []
    return Way(way.loop, process, process.times(steps, *grid))


def answering(
    experiment: Experiment, guidance_scale: float = 1.0, interval: tuple[float, float] = (0.0, 1.0), clip: bool = True
) -> Callable[..., Tensor]:
    """The experiment's denoiser, guided, its estimates of x_0 kept in the range of images if `clip`."""
    denoiser = Guided(experiment.denoiser, guidance_scale, interval)
    return Clipped(denoiser, experiment.codec.low, experiment.codec.high) if clip else denoiser


def conditions(experiment: Experiment, index: Tensor, labels: Tensor | int | None = None) -> dict[str, Tensor]:
    """What the denoiser is told of the samples `index` (B,): nothing, or labels; 0, 1, 2, … in turn if none is given.

    UserError for labels that the network does not know.
    """
    classes = experiment.config.classes
    if labels is None:
        return {"cond": index % classes} if classes else {}
    if not classes:
        raise UserError("these weights know no labels: leave the label out")
    cond = torch.as_tensor(labels, device=index.device).expand(len(index))
    if cond.is_floating_point() or cond.min() < 0 or cond.max() >= classes:
        raise UserError(f"a label is an integer from 0 to {classes - 1}, not {labels}")
    return {"cond": cond.long()}


def trajectory(
    experiment: Experiment,
    index: Tensor,
    seed: int = 0,
    originals: Tensor | None = None,
    clip: bool = True,
    labels: Tensor | int | None = None,
    guidance_scale: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    **how: Any,
) -> Iterator[Tensor]:
    """Every state, from x_1 down to x_0, of the samples `index` (B,): images (B, C, H, W) in [0, 1].

    x_1 is drawn from the prior, or is what is left of `originals` (B, C, H, W), uint8 or in [0, 1]. Sample i of a seed
    is the same whatever else is in the batch. `labels` are those of `conditions`; `clip` keeps every estimate of x_0 in
    range; `how` is for `sampling`.
    """
    loop, process, times = sampling(experiment, **how)
    codec, noise = experiment.codec, Noise(seed, index)
    denoiser = answering(experiment, guidance_scale, interval, clip)
    cond = conditions(experiment, index, labels)
    if originals is None:
        x_1 = process.prior(torch.empty(len(index), *experiment.config.shape, device=index.device), noise)
    else:
        x_1 = process.degrade(codec.encode(originals), times[0], noise)
    yield codec.decode(x_1)
    yield from map(codec.decode, loop(denoiser, process, x_1, times, noise, **cond))


def degraded(experiment: Experiment, images: Tensor, t: Tensor, seed: int = 0) -> Tensor:
    """Images (B, C, H, W), uint8 or in [0, 1], degraded to times t, () or (B,); back in [0, 1]."""
    noise = Noise(seed, torch.arange(len(images), device=images.device))
    x_0, decode = experiment.codec.encode(images), experiment.codec.decode
    return decode(experiment.process.degrade(x_0, t.to(images.device), noise))


def save_weights(path: Path, experiment: Experiment, half: bool = False, **about: Any) -> Path:
    """Write config, weights and what is known `about` them (epoch, holds, scores) to one file, atomically.

    `half` stores the network in half precision, for a file of half the size; it loads as float32.
    """
    network, process = experiment.denoiser.network.state_dict(), experiment.process.state_dict()
    if half:
        network = {name: value.half() if value.is_floating_point() else value for name, value in network.items()}
    content = {"format": FORMAT, "config": asdict(experiment.config), "network": network, "process": process}
    content["about"] = about
    return checkpoint.save(path, content)


def load_weights(path: Path) -> Experiment:
    """The experiment in a weight file, ours or the coursework's; on the CPU, ready to sample.

    Raises UserError with one sentence when the file is missing, cut short, of another kind or another architecture.
    """
    content = checkpoint.load(path)
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
    if Path(name).is_file():
        return Path(name)
    found = [path for folder in folders for path in sorted(Path(folder).glob("*.pth"))]
    known = {path.stem: path for path in found if not path.stem.startswith("classifier_")}
    stem = Path(name).name.removesuffix(".pth")
    if "/" in name or stem not in known:
        raise unknown("weight file", name, sorted(known))
    return known[stem]
