"""Labels of test images by Bayes' rule, from a model that draws: four ways to log p(x | y), each with what it means."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffusion.data.datasets import Dataset
from diffusion.experiment.build import Experiment
from diffusion.laboratory.progress import progress_bar
from diffusion.method import bayes
from diffusion.method.codec import Latents
from diffusion.method.noise import Noise

CODE = (
    "log p(z | y) of the code z = E(x), by the flow of data blurred by 0.05 of a deviation: Bayes' rule given the "
    "code; no likelihood of pixels, not comparable between codecs, never bits/dim"
)
BOUND = (
    "log 1/K sum_k p(x | z_k) p(z_k | y) / q(z_k | x), the same z_k ~ q(z | x) for every class: in the mean a lower "
    "bound of log p(x | y), rising in K; p(x | z) is normal with variance {variance:.4f}, from held-out training "
    "images. Traces by one probe, of the {looked:,} images whose code leaves more than one class; others as by the code"
)
PIXELS = (
    "-∫ ||eps - epshat||² du over u = log(sigma / alpha), the same u and eps for every class: the variational bound of "
    "log p(x | y) up to a constant; classes that are surely worse are left out early"
)
CLOSE = 6.0  # nats below the best code up to which a class is compared by the bound
MIXTURE = "log p(z | y) of the same codes by a mixture of Gaussians a class, without a network: the baseline"


@dataclass(frozen=True)
class Answer:
    """log p(x | y) of test images, (N, K) in nats, how it was had, and what it is."""

    name: str
    nats: Tensor
    labels: Tensor  # (N,)
    seconds: float
    meaning: str


class Codes:
    """The codes of test images, and their densities by the flow whose codec made them."""

    def __init__(self, experiment: Experiment, test: Dataset, steps: int):
        assert isinstance(experiment.codec, Latents), "only latents have codes"
        self.experiment, self.codec, self.test, self.steps = experiment, experiment.codec, test, steps
        self.denoiser, self.classes = experiment.denoiser.for_derivatives(), experiment.config.classes
        self.x_0 = self.codec.encode(test.images)

    def density(self, x_0: Tensor, pairs: Tensor, text: str, probes: int | None = None, index: Tensor | None = None):
        """log p(x_0 | y), (P,), of pairs of a place in x_0 (N, …) and a class; probes are those of image `index`."""
        of_image = torch.arange(len(x_0), device=x_0.device) if index is None else index
        noise = lambda place: Noise(1, of_image[place])
        with progress_bar(len(pairs), text, "pair") as bar:
            given = {"steps": self.steps, "probes": probes, "tick": bar.update}
            return bayes.log_likelihoods(self.denoiser, self.experiment.process, x_0, pairs, noise, **given)

    def answer(self, log_prior: Tensor) -> Answer:
        """Under every class by one probe, at last by the exact trace where that leaves several."""
        began = time.monotonic()
        named = lambda probes: f"classes by {probes} probe{'s' * (probes != 1)}" if probes else "exactly"
        density = lambda pairs, probes: self.density(self.x_0, pairs, named(probes), probes)
        nats = bayes.in_stages(density, len(self.x_0), log_prior)
        return Answer("code", nats, self.test.labels, time.monotonic() - began, CODE)

    def exhaustive(self, count: int) -> Tensor:
        """By the exact trace under every class, of the first images."""
        pairs = bayes.every_pair(count, self.classes, self.x_0.device)
        return self.density(self.x_0[:count], pairs, "exhaustive").reshape(count, -1)


def by_importance(codes: Codes, by_code: Answer, log_prior: Tensor, variance: float, counts: tuple) -> Iterator[Answer]:
    """With several draws of q(z | x), for the images of which the code leaves more than one class; the `counts` rise,
    and the draws of each are among those of the next.
    """
    began, codec = time.monotonic(), codes.codec
    near = by_code.nats + log_prior.to(by_code.nats) >= (by_code.nats + log_prior).max(1, keepdim=True).values - CLOSE
    index = (near.sum(1) > 1).nonzero()[:, 0]
    images, near = codes.test.images[index] / 255, near[index]
    mean, log_var = codec.posterior(codes.test.images[index]).chunk(2, dim=1)
    noise, terms = Noise(2, index), []  # log p(x | z), log p(z | y) and log q(z | x) of the draws so far
    for before, count in pairwise((0, *counts)):
        more = count - before
        z = torch.stack([mean + (log_var / 2).exp() * noise(mean) for _ in range(more)])  # (S, n, C, 1, 1)
        decoded = torch.stack([torch.cat([codec.autoencoder.decode(p) for p in part.split(1000)]) for part in z])
        log_p_x = bayes.log_normal(decoded, images, torch.full_like(images, variance).log())
        log_p_z = log_p_x.new_full((more, len(index), codes.classes), -torch.inf)
        draw, image, label = near.expand(more, -1, -1).nonzero().unbind(1)
        pairs, standard = torch.stack([draw * len(index) + image, label], 1), (z - codec.mean) / codec.std
        found = codes.density(standard.flatten(0, 1), pairs, "importance weights", 1, index.repeat(more))
        log_p_z[draw, image, label] = found - codec.std.double().log().sum()
        terms.append((log_p_x, log_p_z, bayes.log_normal(z, mean, log_var)))
        nats = by_code.nats.clone()
        nats[index] = bayes.importance_weighted(*map(torch.cat, zip(*terms)))
        meaning, seconds = BOUND.format(variance=variance, looked=len(index)), time.monotonic() - began
        yield Answer(f"bound, K = {count}", nats, codes.test.labels, seconds, meaning)


@torch.no_grad()
def pixel_variance(codec: Latents, held_out: Dataset) -> float:
    """The mean squared error of a pixel when held-out images are decoded from draws of q(z | x)."""
    mean, log_var = codec.posterior(held_out.images).chunk(2, dim=1)
    z = mean + (log_var / 2).exp() * Noise(3, torch.arange(len(mean), device=mean.device))(mean)
    decoded = torch.cat([codec.autoencoder.decode(part) for part in z.split(1000)])
    return (decoded - held_out.images / 255).square().mean().item()


def by_pixels(experiment: Experiment, test: Dataset) -> Answer:
    """By the errors of a pixel model."""
    began, codec = time.monotonic(), experiment.codec
    noise = Noise(4, torch.arange(len(test), device=test.images.device))
    with progress_bar(4 * len(test), f"pixels, by {experiment.config.preset}", "image") as bar:
        given = {"classes": experiment.config.classes, "noise": noise, "tick": bar.update}
        x_0 = codec.encode(test.images)
        nats = bayes.diffusion_classifier(experiment.denoiser, experiment.process, x_0, **given)
    return Answer(f"pixels, {experiment.config.preset}", nats, test.labels, time.monotonic() - began, PIXELS)


def by_mixtures(codec: Latents, train: Dataset, test: Dataset) -> Iterator[Answer]:
    """By one Gaussian and by eight a class."""
    x, y = (codec.encode(data.images).flatten(1) for data in (train, test))
    for count in (1, 8):
        began = time.monotonic()
        nats = bayes.mixture_log_likelihoods(x, train.labels, y, count)
        name = "one Gaussian a class" if count == 1 else f"{count} Gaussians a class"
        yield Answer(name, nats.to(test.labels.device), test.labels, time.monotonic() - began, MIXTURE)
