"""Objectives: what is trained for. One draws what the loss of a batch needs, and computes that loss.

Drawing takes no gradients, and its random numbers come from `noise` alone, one stream for each image of the batch.
"""

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffusion.experiment.build import Experiment
from diffusion.method.consistency import EARLIEST, neighbour
from diffusion.method.denoiser import Cond, Denoiser
from diffusion.method.guidance import Guided
from diffusion.method.matching import call_time, descent, surrogate
from diffusion.method.noise import Noise
from diffusion.method.process import append_dims
from diffusion.networks.autoencoder import Autoencoder
from diffusion.precision import computes_bf16

Inputs = tuple[Any, ...]
MOST_CALLS = 4  # that a model distilled by matching is trained for
TAU = (0.02, 0.98)  # between which its draws are compared with the teacher's, as in Yin et al. (2024a)


class Objective(Protocol):
    critic: nn.Module | None = None  # trained beside the module that is asked for, and saved with the training's state

    def draw(self, data: Tensor, labels: Tensor | None, noise: Noise) -> Inputs:
        """The arguments of the loss, of a batch's images or latents (B, …) and its labels (B, …)."""

    def loss(self, trained: Any, *inputs: Any) -> Tensor:
        """The mean loss () of the module that is trained."""


def objective_of(experiment: Experiment) -> Objective:
    """What the experiment's config says that it is trained for."""
    if experiment.config.is_codec:
        return Reconstruction(experiment)
    if experiment.config.teacher == "none":
        return Denoising(experiment)
    return Matching(experiment) if experiment.config.distillation == "matching" else Consistency(experiment)


class Loss(nn.Module):
    """A module whose forward is its loss: what data-parallel wrappers can hook into."""

    def __init__(self, objective: Objective, trained: nn.Module):
        super().__init__()
        self.objective, self.trained, self.critic = objective, trained, objective.critic

    def forward(self, *inputs: Any) -> Tensor:
        return self.objective.loss(self.trained, *inputs)


class Denoising(Objective):
    """A denoiser's own loss at random times; labels are dropped now and then, so that it can also do without."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment

    def draw(self, data: Tensor, labels: Tensor | None, noise: Noise) -> Inputs:
        e = self.experiment
        x_0 = e.codec.draw(data, noise)
        t = e.process.draw_time(noise)
        eps = noise(x_0) if e.process.adds_noise else torch.zeros_like(x_0)
        x_t = e.process.degrade(x_0, t, eps)
        if labels is not None:
            dropped = noise.uniform() <= e.config.drop_prob
            labels = torch.where(append_dims(dropped, labels).bool(), e.denoiser.null(labels), labels)
        return x_0, eps, x_t, t, labels

    def loss(self, trained: Denoiser, *inputs: Any) -> Tensor:
        return trained.loss(*inputs)


class Consistency(Objective):
    """Consistency distillation (Song et al., 2023): x_0 of x_t is to be that of its neighbour on the teacher's path.

    The neighbour is asked of the moving average, which is the experiment's own denoiser.
    """

    def __init__(self, experiment: Experiment):
        assert experiment.teacher is not None, "experiment.weights.begin_from_teacher opens it"
        self.experiment, self.teacher = experiment, experiment.teacher

    @torch.no_grad()
    def draw(self, data: Tensor, labels: Tensor | None, noise: Noise) -> Inputs:
        e, schedule = self.experiment, self.experiment.denoiser.schedule
        assert schedule is not None
        _, _, x_t, t, cond = Denoising(e).draw(data, labels, noise)
        s = (t - 1 / e.config.teacher_steps).clamp(min=0)
        x_s = neighbour(self.teacher, schedule, x_t, t, s, cond)
        x_0 = e.denoiser(x_s, s.clamp(min=EARLIEST), cond)
        return x_t, t, cond, torch.where(append_dims(s, x_s) > 0, x_0, x_s)

    def loss(self, trained: Denoiser, x_t: Tensor, t: Tensor, cond: Cond, x_0: Tensor) -> Tensor:
        error = (trained(x_t, t, cond) - x_0).square().flatten(1).mean(1)
        return (error / t).mean()  # near t = 0, x_0 is x_t and little of the network


class Matching(Objective):
    """Distribution matching distillation (Yin et al., 2024a) without pairs of noise and image (Yin et al., 2024b).

    One call at a time of the sampler "consistency" is to draw what the teacher draws, which may be guided; before t = 1
    it starts from noisy training images, not from calls of its own. The critic is a denoiser of what is drawn, trained
    in the same steps: neither loss has a gradient in the other's weights.
    """

    def __init__(self, experiment: Experiment):
        assert experiment.teacher is not None, "experiment.weights.begin_from_teacher opens it"
        self.experiment, self.teacher = experiment, Guided(experiment.teacher, experiment.config.teacher_scale)
        self.critic: Denoiser = copy.deepcopy(experiment.teacher).requires_grad_(True)

    @torch.no_grad()
    def draw(self, data: Tensor, labels: Tensor | None, noise: Noise) -> Inputs:
        e = self.experiment
        x_0, eps, _, _, cond = Denoising(e).draw(data, labels, noise)
        t = call_time(noise.uniform(), noise.uniform(), MOST_CALLS)
        tau = TAU[0] + (TAU[1] - TAU[0]) * noise.uniform()
        return e.process.degrade(x_0, t, eps), t, cond, tau, noise(x_0)

    def loss(self, trained: Denoiser, x_t: Tensor, t: Tensor, cond: Cond, tau: Tensor, eps: Tensor) -> Tensor:
        drawn = trained(x_t, t, cond)
        fixed = drawn.detach()
        x_tau = self.experiment.process.degrade(fixed, tau, eps)
        with torch.no_grad():
            gradient = descent(fixed, self.teacher(x_tau, tau, cond), self.critic(x_tau, tau, cond))
        return surrogate(drawn, gradient) + self.critic.loss(fixed, eps, x_tau, tau, cond)


class Reconstruction(Objective):
    """An autoencoder's: half the squared error, or with loss "l1" the absolute one, summed over an image.

    Of a variational one with kl_weight times KL(q(z | x) || N(0, 1)) (Kingma & Welling, 2014, appendix B), with a fresh
    z each step: the negative ELBO of pixels with variance kl_weight, times that and up to a constant.
    """

    def __init__(self, experiment: Experiment):
        self.config = experiment.config

    def draw(self, data: Tensor, labels: Tensor | None, noise: Noise) -> Inputs:
        images = data / 255
        return images, noise(images.new_empty(len(images), self.config.latent, 1, 1))

    def loss(self, trained: Autoencoder, images: Tensor, eps: Tensor) -> Tensor:
        error, kl = reconstruction_terms(trained, images, eps, self.config.loss, self.config.precision == "bf16")
        return error.mean() + (self.config.kl_weight * kl.mean() if trained.variational else 0)


def reconstruction_terms(
    trained: Autoencoder, images: Tensor, eps: Tensor, loss: str = "l2", bf16: bool = False
) -> tuple[Tensor, Tensor]:
    """Error and KL divergence in nats, each (B,), of images (B, C, H, W) in [0, 1], decoded from z = mean + std eps."""
    device = images.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16 and computes_bf16(device)):
        mean, log_var = (each.float() for each in trained.encode(images))
        decoded = trained.decode(mean + (log_var / 2).exp() * eps).float()
    difference = (decoded - images).flatten(1)
    error = difference.abs().sum(1) if loss == "l1" else difference.square().sum(1) / 2
    return error, (mean.square() + log_var.exp() - 1 - log_var).flatten(1).sum(1) / 2
