"""Classification by Bayes' rule: p(y | x) is proportional to p(x | y) p(y), by a class-conditional model of p(x | y).

Every log p here is in nats and (N, K): of N images under each of K classes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion.method.denoiser import Denoise
from diffusion.method.likelihood import Span, log_likelihood
from diffusion.method.noise import Noise
from diffusion.method.process import Gaussian, append_dims

LATENT_SPAN: Span = (0.05, 200.0)  # of sigma / alpha: latents count to 0.05 of their deviation; at 200 all is lost
STAGES = ((1, 12.0), (8, 5.0))  # probes; nats below the best up to which a class is looked at again
TOGETHER = 2000  # pairs of image and class in one call; the exact trace takes as many derivatives as there are latents
SURE = 3.0  # standard errors by which a class has to be worse than the best to be left out


def class_prior(labels: Tensor, classes: int) -> Tensor:
    """log p(y), (K,) float64, of the labels (N,) of the training set."""
    return torch.bincount(labels.cpu(), minlength=classes).double().div(len(labels)).log()


def log_likelihoods(
    denoiser: Denoise,
    process: Gaussian,
    x_0: Tensor,
    pairs: Tensor,
    noise: Callable[[Tensor], Noise],
    *,
    steps: int = 20,
    probes: int | None = None,
    span: Span = LATENT_SPAN,
    tick: Callable[[int], object] = lambda pairs: None,
) -> Tensor:
    """log p(x_0 | y), (P,), of pairs (P, 2) of an image, as its place in x_0 (N, …), and a class.

    `noise` gives the noise of the images at such places: the random probes of an image are the same for all classes,
    so that most of their error is, too. With probes None the trace is exact.
    """
    parts = []
    for part in pairs.split(TOGETHER if probes else TOGETHER // 4):
        image, label = part.unbind(1)
        nats = log_likelihood(denoiser, process, x_0[image], steps, noise(image), probes, label, span)
        parts.append(nats)
        tick(len(part))
    return torch.cat(parts)


def every_pair(images: int, classes: int, device: torch.device | None = None) -> Tensor:
    """(images * classes, 2): each image with each class."""
    return torch.cartesian_prod(torch.arange(images, device=device), torch.arange(classes, device=device))


def refined(coarse: Tensor, log_prior: Tensor, better: Callable[[Tensor], Tensor], margin: float) -> Tensor:
    """log p(x | y), (N, K), by `better(pairs)` for the classes that the `coarse` one leaves within the margin of the
    best posterior; the others are -inf. Where one class is left the label is decided: it stays coarse.
    """
    posterior = coarse + log_prior.to(coarse)
    near = posterior >= posterior.max(1, keepdim=True).values - margin
    nats = torch.where(near, coarse, -math.inf)
    near &= near.sum(1, keepdim=True) > 1
    nats[near] = better(near.nonzero()).to(nats)
    return nats


def in_stages(density: Callable[[Tensor, int | None], Tensor], images: int, log_prior: Tensor) -> Tensor:
    """log p(x | y), (N, K), by `density(pairs, probes)`: by few probes for all classes, by more for those that are
    left, and by the exact trace for those of which a label is still to be chosen.
    """

    def by(probes: int | None) -> Callable[[Tensor], Tensor]:
        return lambda pairs: density(pairs, probes)

    (first, margin), *others = [*STAGES, (None, 0.0)]
    pairs = every_pair(images, len(log_prior), log_prior.device)
    nats = density(pairs, first).reshape(images, -1)
    for probes, next_margin in others:
        nats = refined(nats, log_prior, by(probes), margin)
        margin = next_margin
    return nats


def importance_weighted(log_p_x: Tensor, log_p_z: Tensor, log_q: Tensor) -> Tensor:
    """log 1/S sum_s p(x | z_s) p(z_s | y) / q(z_s | x), (N, K) (Burda et al., 2016), from log p(x | z) and log q, both
    (S, N), and log p(z | y), (S, N, K). The same draws serve all classes. In the mean a lower bound, rising in S.
    """
    return (log_p_z + (log_p_x - log_q)[..., None]).logsumexp(0) - math.log(len(log_q))


def log_normal(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log N(x; mean, exp(log_var)), summed over all but the first two axes: (S, N, …) -> (S, N)."""
    terms = (x - mean) ** 2 / log_var.exp() + log_var + math.log(2 * math.pi)
    return -terms.double().flatten(2).sum(2) / 2


@torch.no_grad()
def diffusion_classifier(
    denoiser: Denoise,
    process: Gaussian,
    x_0: Tensor,
    classes: int,
    noise: Noise,
    *,
    rounds: int = 4,
    levels: int = 8,
    span: Span = (0.05, 20.0),
    tick: Callable[[int], object] = lambda images: None,
) -> Tensor:
    """-∫ ||eps - epshat(x_t, t, y)||² du, (N, K), over u = log(sigma / alpha): log p(x | y) up to what is the same
    for all classes, by the variational bound (Kingma et al., 2021; Clark & Jaini, 2023; Li et al., 2023 leave the
    weight du out).

    Each round draws stratified u and eps, the same for all classes. A class whose mean difference from the best of its
    image is above SURE standard errors is left out from then on: -inf (Clark & Jaini, 2023, Algorithm 1).
    """
    n, low, high = len(x_0), math.log(span[0]), math.log(span[1])
    errors = x_0.new_full((0, n, classes), math.nan, dtype=torch.float64)
    alive = torch.ones(n, classes, dtype=torch.bool, device=x_0.device)
    for _ in range(rounds):
        image, label = alive.nonzero().unbind(1)
        for level in range(levels):
            u = low + (high - low) * (level + noise.uniform().double()) / levels  # (N,)
            t, eps = process.schedule.time_at(-u), noise(x_0)
            error = errors.new_full((1, n, classes), math.nan)
            error[0, image, label] = _errors(denoiser, process, x_0, eps, t, image, label)
            errors = torch.cat([errors, error])
        alive &= _undecided(errors, alive)
        tick(n)
    return torch.where(alive, -(high - low) * errors.mean(0), -math.inf)


def _errors(
    denoiser: Denoise, process: Gaussian, x_0: Tensor, eps: Tensor, t: Tensor, image: Tensor, label: Tensor
) -> Tensor:
    """||eps - epshat||² (P,) of pairs of an image and a class."""
    x_t, parts = process.degrade(x_0, t, eps), []
    for i, y in zip(image.split(TOGETHER // 4), label.split(TOGETHER // 4)):
        alpha, sigma = (append_dims(each, x_t) for each in process.schedule(t[i]))
        epshat = (x_t[i] - alpha * denoiser(x_t[i], t[i], y)) / sigma
        parts.append((eps[i] - epshat).double().square().flatten(1).sum(1))
    return torch.cat(parts)


def _undecided(errors: Tensor, alive: Tensor) -> Tensor:
    """Which classes (N, K) may still be the best of their image, by differences (S, N, K) of the same draws."""
    best = torch.where(alive, errors.mean(0), math.inf).argmin(1)
    behind = errors - errors.gather(2, best[None, :, None].expand(len(errors), -1, 1))  # (S, N, K)
    return behind.mean(0) <= SURE * behind.std(0) / len(errors) ** 0.5


def accuracies(posterior: Tensor, labels: Tensor) -> tuple[float, float]:
    """Plain accuracy, and the mean over the classes that are there of the accuracy in each, of (N, K) and (N,)."""
    right = (posterior.argmax(1) == labels).double()
    each = [right[labels == label].mean() for label in labels.unique()]
    return right.mean().item(), torch.stack(each).mean().item()


def confusion(posterior: Tensor, labels: Tensor) -> Tensor:
    """How often (K, K) a class, by row, is taken for another, by column."""
    k = posterior.shape[1]
    return torch.bincount(labels * k + posterior.argmax(1), minlength=k * k).reshape(k, k)


def mixture_log_likelihoods(train: Tensor, labels: Tensor, test: Tensor, components: int) -> Tensor:
    """A baseline without a network: log p(x | y), (N, K), of test (N, D), by a mixture a class of so many Gaussians,
    with full covariances, fitted to train (M, D) and its labels (M,).
    """
    from sklearn.mixture import GaussianMixture  # here, as only this needs it

    x, y, nats = train.double().cpu(), test.double().cpu().numpy(), []
    for label in range(int(labels.max()) + 1):
        mixture = GaussianMixture(components, reg_covar=1e-4, random_state=0, max_iter=60)
        nats.append(torch.from_numpy(mixture.fit(x[labels.cpu() == label].numpy()).score_samples(y)))
    return torch.stack(nats, 1)
