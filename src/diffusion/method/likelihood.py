"""How likely an image is to a Gaussian diffusion model, by its probability-flow ODE (Song et al., 2021b)."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from diffusion.method.denoiser import Cond, Denoise
from diffusion.method.noise import Noise, unit
from diffusion.method.process import Gaussian, Process

Span = tuple[float, float]
SPAN: Span = (1e-3, 1e3)  # of sigma / alpha: from far below a grey level to where an image is lost in noise


def log_likelihood(
    denoiser: Denoise,
    process: Process,
    x_0: Tensor,
    steps: int,
    noise: Noise,
    probes: int | None = 1,
    cond: Cond = None,
    span: Span | None = None,
) -> Tensor:
    """log p(x_0) in nats, (B,) float64, of images x_0 (B, C, H, W) in units of the process; two calls a step.

    With xbar = x / alpha, sbar = sigma / alpha and u = log sbar, every schedule has the same flow
        d xbar / du = xbar - x_0hat(x, t),    d log p / du = -(dim - trace of d x_0hat / d xbar),
    from which log p(x_0) is followed through the `span` (SPAN) of sbar to the prior N(0, sbar^2). It is the density of
    data blurred by the smallest sbar, as a point mass has none: by SPAN[0], or what a discrete process has at t = 1/T.
    The trace is Hutchinson's (1990) mean over random `probes`, the same all along the path, which is unbiased; with
    probes None it is exact, at the price of as many probes as x_0 has numbers.
    """
    assert isinstance(process, Gaussian), "a likelihood needs a process of Gaussian noise"
    times, log_snr = flow_times(process, steps, span), process.schedule.log_snr
    assert len(times) > 1, f"this process has no two noise levels within {span or SPAN}"
    signs = basis(x_0) if probes is None else random_signs(x_0, noise, probes)
    at = lambda xbar, t: estimate_and_trace(denoiser, process, xbar.to(x_0.dtype), t, signs, cond)
    flow = lambda xbar, x_0hat, h: x_0hat + h.exp() * (xbar - x_0hat)  # over h in u, exact for an x_0hat that stays
    xbar, dim = x_0.double(), x_0.shape[1:].numel()
    gained = torch.zeros(len(x_0), dtype=torch.float64, device=x_0.device)
    for t, s in pairwise(times):
        h = log_snr(t) - log_snr(s)  # the step from t up to s, in u
        first, trace = at(xbar, t)
        second, later = at(flow(xbar, first, h), s)  # Heun: the mean of both ends
        xbar = flow(xbar, (first + second) / 2, h)
        gained += h * (dim - (trace + later) / 2)
    sbar = (-log_snr(times[-1])).exp()
    prior = -(xbar / sbar).flatten(1).square().sum(1) / 2 - dim * (sbar.log() + math.log(2 * math.pi) / 2)
    return gained + prior


def random_signs(x_0: Tensor, noise: Noise, probes: int) -> Tensor:
    """(probes, B, …) of random 1 and -1, of which v^T J v has the trace of J as its mean."""
    return torch.stack([torch.where(noise(x_0) < 0, -1.0, 1.0).to(x_0.dtype) for _ in range(probes)])


def basis(x_0: Tensor) -> Tensor:
    """(D, B, …): the D unit vectors times the root of D, of which v^T J v has the trace of J as its mean, exactly."""
    dim = x_0.shape[1:].numel()
    unit_vectors = dim**0.5 * torch.eye(dim, dtype=x_0.dtype, device=x_0.device)
    return unit_vectors.view(dim, 1, *x_0.shape[1:]).expand(dim, *x_0.shape)


def estimate_and_trace(
    denoiser: Denoise, process: Gaussian, xbar: Tensor, t: Tensor, signs: Tensor, cond: Cond
) -> tuple[Tensor, Tensor]:
    """x_0hat of the shape of xbar (B, …), and the trace (B,) of its derivative by xbar; both float64."""
    alpha, _ = process.schedule(t)
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller's mode
        x_t = (alpha * xbar).requires_grad_()
        x_0hat = denoiser(x_t, t.clone(), None if cond is None else cond.clone())
        if len(signs) > 8:  # all at once: quick for a small network
            products = (torch.autograd.grad(x_0hat, x_t, signs, is_grads_batched=True)[0] * signs).flatten(2).sum(2)
        else:
            derivatives = (torch.autograd.grad(x_0hat, x_t, v, retain_graph=True)[0] for v in signs)
            products = torch.stack([(each * v).flatten(1).sum(1) for each, v in zip(derivatives, signs)])
    return x_0hat.detach().double(), alpha * products.double().mean(0)  # of v^T J v (probes, B)


def flow_times(process: Gaussian, steps: int, span: Span | None = None) -> Tensor:
    """Times (steps + 1,) from low to high, even in log(sigma / alpha) between the ends of the span or SPAN, float64.

    Of a discrete process: the nearest of its T times, each once, so there may be fewer; not t = 0, never trained.
    """
    ends = torch.tensor(span or SPAN, dtype=torch.float64).log()
    if process.timesteps:
        table_ends = torch.tensor([1 / process.timesteps, 1.0], dtype=torch.float64)
        ends = ends.clamp(*-process.schedule.log_snr(table_ends).cpu())
    return process.schedule.time_at(-torch.linspace(ends[0], ends[1], steps + 1, dtype=torch.float64)).unique()


def bits_per_dim(nats: Tensor, dim: int, bin_width: float) -> Tensor:
    """Bits a number (B,), for log-likelihoods in nats (B,) of `dim` numbers, of an image of grey levels.

    A level is as likely as its bin, as wide as bin_width in the units of the likelihood; averaged over `dequantise`,
    this is at least the code length of the levels themselves (Theis et al., 2016).
    """
    return -(nats + dim * math.log(bin_width)) / (dim * math.log(2))


def dequantise(images: Tensor, noise: Noise) -> Tensor:
    """uint8 images (B, …) -> (v + u) / 256 in [0, 1] with u uniform: each level spread over its bin, 1/256 wide."""
    assert images.dtype == torch.uint8, f"only uint8 images have 256 levels, not {images.dtype}"
    u = unit(noise.bits(images[0].numel()), 40)
    return (images + u.reshape(images.shape)) / 256
