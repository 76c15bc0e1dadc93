"""An experiment is what a Config describes, built: codec, process, denoiser; or a codec alone."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion.data.captions import Words
from diffusion.data.minilm import Pieces, Pretrained
from diffusion.errors import UserError
from diffusion.experiment.config import Config
from diffusion.method.averaging import Averaging, line_order
from diffusion.method.codec import Codec, Latents, Pixels, Shape
from diffusion.method.denoiser import Denoiser
from diffusion.method.process import Gaussian, Process
from diffusion.method.schedule import Cosine, LinearBeta, Rectified, Schedule
from diffusion.networks.autoencoder import Autoencoder
from diffusion.networks.cnn import CNN
from diffusion.networks.minilm import MiniLM
from diffusion.networks.mlp import MLP
from diffusion.networks.text import TextUNet
from diffusion.networks.unet import UNet
from diffusion.precision import torch_defaults


@dataclass
class Experiment:
    """The parts of a Config; `about` is what its weight file says (epoch, raw or averaged weights, scores).

    An autoencoder is a codec alone: it has neither process nor denoiser, and UserError says so to whoever wants one.
    """

    config: Config
    codec: Codec
    process: Process
    denoiser: Denoiser
    about: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None  # of the weight file, if it was loaded from one
    teacher: Denoiser | None = None  # whose sampling is learnt; only training needs it
    reader: Words | Pieces | None = None  # of a text network: captions to numbers and back
    text_encoder: str | None = None  # the sha256 of the frozen one, if it has one

    @classmethod
    def of_codec(cls, config: Config, codec: Codec) -> "Experiment":
        """An autoencoder's."""
        alone = cls.__new__(cls)  # not all of its fields can be given
        alone.config, alone.codec, alone.about, alone.path = config, codec, {}, None
        return alone

    def __getattr__(self, name: str) -> Any:  # asked for what is not there
        if name in ("process", "denoiser") and self.config.is_codec:
            does = f"an autoencoder ({self.config.preset}) encodes and decodes images, but draws none"
            raise UserError(f"{does}: train a flow on its latents, or load one")
        raise AttributeError(name)

    @property
    def trained(self) -> nn.Module:
        """What training changes: the denoiser, or the autoencoder of a codec."""
        return self.codec.autoencoder if isinstance(self.codec, Latents) and self.config.is_codec else self.denoiser

    @property
    def network(self) -> nn.Module:
        """The network itself, whose weights a file holds."""
        return self.trained if self.config.is_codec else self.denoiser.network

    def process_state(self) -> dict[str, Any]:
        """What the process has learnt, for a file; of a codec nothing."""
        return {} if self.config.is_codec else self.process.state_dict()

    @property
    def device(self) -> torch.device:
        return next(self.trained.parameters()).device

    @property
    def origin(self) -> str:
        """The weight file, what it holds and its epoch, for people to read."""
        known = isinstance(epoch := self.about.get("epoch"), (int, float))
        path = self.path and (os.path.relpath(self.path) if self.path.is_relative_to(Path.cwd()) else self.path)
        return (
            f"{path} ({self.about.get('holds', 'untrained')} weights, epoch {f'{epoch:.4g}' if known else 'unknown'})"
        )

    def to(self, device: torch.device | str) -> "Experiment":
        parts = (self.codec,) if self.config.is_codec else (self.codec, self.process, self.denoiser, self.teacher)
        for part in filter(None, parts):
            part.to(device)
        return self


@torch_defaults()
def build(
    config: Config, alpha_bar: Tensor | None = None, codec: Codec | None = None, pretrained: Pretrained | None = None
) -> Experiment:
    """An untrained experiment, its weights a function of config.seed; torch's global generator is left alone.

    `alpha_bar` (T + 1,) is the table that weights were trained with, if it is not the schedule's own. `codec` is the
    one that config.codec names, if it names one (`weights.open_codec` reads it), and `pretrained` the text encoder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.is_codec:
            codec = Latents(_autoencoder(config), (config.latent, 1, 1), config.contrast, asdict(config))
            return Experiment.of_codec(config, codec)
        codec = codec or _pixels(config)
        network = _network(config, codec.shape, pretrained)
    parts = _averaging(config, network) if config.process == "averaging" else _gaussian(config, network, alpha_bar)
    process, denoiser = parts
    experiment = Experiment(config, codec, process, denoiser.eval())
    if pretrained:
        experiment.reader, experiment.text_encoder = pretrained.pieces.of(config.caption_length), pretrained.digest
    elif config.reads:
        experiment.reader = Words(config.words, config.caption_length)
    return experiment


def _pixels(config: Config) -> Pixels:
    if config.codec != "pixels":
        raise UserError(f"there is no codec here for a model of the latents of {config.codec!r}: load that one first")
    return Pixels(*config.pixel_range, config.shape)


def _network(config: Config, shape: Shape, pretrained: Pretrained | None) -> nn.Module:
    if config.network == "mlp":
        if len(config.hidden) < 2:
            raise UserError(f"hidden of an mlp is the width of its trunk and of each block, not {list(config.hidden)}")
        return MLP(shape, config.hidden, config.classes)
    if config.words and (config.network != "text" or config.classes):
        raise UserError("captions are read by the network 'text' alone, which knows no labels: classes is 0")
    if config.network in ("unet", "text"):
        if len(config.hidden) != 2 or any(width % 8 for width in config.hidden):
            raise UserError(f"hidden of a unet is two widths, multiples of 8, not {list(config.hidden)}")
        if any(side % 2 for side in shape[1:]):
            raise UserError(f"a unet needs images of even height and width, not of shape {shape}")
    if config.network == "text":
        if not config.caption_length or bool(config.words) is (config.text_encoder == "minilm"):
            raise UserError("the network 'text' reads captions: train it on a data set that has them, such as digits")
        if config.text_encoder == "minilm" and not pretrained:
            raise UserError("there is no text encoder here for a model that reads with MiniLM: load that one first")
        minilm = MiniLM(pretrained.weights) if pretrained else None
        read = len(config.words), config.caption_length
        return TextUNet(shape, config.hidden, *read, minilm=minilm, pooled=config.pooled)
    if config.network == "unet":
        return UNet(shape, config.hidden, config.classes)
    if config.classes:
        raise UserError("network 'cnn' cannot be class-conditional: use unet, or classes 0")
    return CNN(shape, config.hidden, config.activation)


def _autoencoder(config: Config) -> Autoencoder:
    for name, widths in (("hidden", config.hidden), ("encoder", config.encoder)):
        if len(widths) != 3:
            raise UserError(f"{name} of an autoencoder is three widths, such as [12, 48, 24], not {list(widths)}")
    if any(side % 4 for side in config.shape[1:]):
        raise UserError(f"an autoencoder needs images whose sides are multiples of 4, not of shape {config.shape}")
    if config.codec != "pixels":
        raise UserError("an autoencoder works on pixels: leave its codec out")
    network = Autoencoder(config.shape, config.latent, config.encoder, config.hidden, config.network == "vae")
    return network.requires_grad_(False).eval()


def _gaussian(config: Config, network: nn.Module, alpha_bar: Tensor | None) -> tuple[Process, Denoiser]:
    kinds: dict[str, type[Schedule]] = {"linear": LinearBeta, "cosine": Cosine, "rectified": Rectified}
    table = (config.timesteps, config.beta_min, config.beta_max) if config.schedule == "linear" else ()
    schedule = kinds[config.schedule](*table)
    if alpha_bar is not None:
        schedule.alpha_bar = nn.Buffer(_checked_table(config, alpha_bar))  # persistent: saved with the process
    if config.schedule == "linear" and schedule(torch.tensor(1 - 1 / config.timesteps))[0] == 0:
        why = f"beta_max {config.beta_max:g} and {config.timesteps} timesteps take alpha to 0 before t = 1"
        raise UserError(f"{why}: lower one of them")
    if config.target == "eps" and schedule(torch.ones(()))[0] < 1e-6:
        why = "target 'eps' says nothing of x_0 at t = 1 where this schedule has alpha = 0"
        raise UserError(f"{why}: use v, velocity or x_0")
    process = Gaussian(schedule, variance=config.variance, logit_normal=config.draw_time == "logit-normal")
    return process, Denoiser(network, schedule, config.target, config.loss, config.precision == "bf16")


def _checked_table(config: Config, alpha_bar: Tensor) -> Tensor:
    """A weight file's own table in float64; UserError if it cannot be one."""
    count = config.timesteps + 1
    falls = isinstance(alpha_bar, Tensor) and alpha_bar.shape == (count,) and (alpha_bar.double().diff() < 0).all()
    if config.schedule != "linear" or not falls or alpha_bar[0] > 1 or alpha_bar[-1] <= 0:
        rule = f"{count} numbers that fall, from 1 or less to more than 0"
        raise UserError(f"the weights' own table alpha_t cannot be one: it has to be {rule}")
    return alpha_bar.double()


def _averaging(config: Config, network: nn.Module) -> tuple[Process, Denoiser]:
    lines = config.shape[{"row": 1, "col": 2}[config.axis]]
    if lines % config.timesteps:
        raise UserError(f"{lines} lines do not divide into {config.timesteps} groups of equal size")
    order = line_order(config.order, lines, config.seed).reshape(config.timesteps, -1)
    process = Averaging(config.axis, order, sigma=config.noise, channels=config.shape[0])
    return process, Denoiser(network, loss=config.loss, bf16=config.precision == "bf16")
