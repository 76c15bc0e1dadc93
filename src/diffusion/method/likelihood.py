"""How likely an image is to a Gaussian diffusion model, by its probability-flow ODE (Song et al., 2021b)."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from diffusion.errors import UserError, check_int
from diffusion.method.noise import Noise, unit
from diffusion.method.process import Gaussian, Process

SPAN = (1e-3, 1e3)  # of sigma / alpha: from far below a grey level to where an image is lost in noise


def log_likelihood(
    denoiser: Callable[..., Tensor],
    process: Gaussian,
    x_0: Tensor,
    steps: int,
    noise: Noise | None = None,
    probes: int = 1,
    exact: bool = False,
    span: tuple[float, float] = SPAN,
    **cond,
) -> Tensor:
    """log p(x_0) in nats, (B,) float64, of images x_0 (B, C, H, W) in units of the process; two calls a step.

    With xbar = x / alpha, sbar = sigma / alpha and u = log sbar, every schedule has the same flow
        d xbar / du = xbar - x_0hat(x, t),    d log p / du = -(dim - trace of d x_0hat / d xbar),
    from which log p(x_0) is followed through the `span` of sbar to the prior N(0, sbar^2). It is the density of data
    blurred by the smallest sbar, as a point mass has none: by span[0], or what a discrete process has at t = 1/T.
    The trace is Hutchinson's (1990) mean over random `probes` of `noise`, unbiased, or `exact` at dim times the cost.
    UserError for a process that is not Gaussian and for impossible numbers.
    """
    if not hasattr(process, "schedule"):
        raise UserError("a likelihood needs a process of Gaussian noise, which has a schedule; this one has none")
    if x_0.dim() < 2 or not x_0.is_floating_point():
        raise UserError(f"x_0 is a batch (B, …) of encoded images, not {tuple(x_0.shape)} of {x_0.dtype}")
    times, directions = flow_times(process, steps, span), _directions(x_0, noise, probes, exact)
    seen = lambda xbar, t: _seen(denoiser, process, xbar.to(x_0.dtype), t, directions, cond)
    xbar, dim = x_0.double(), x_0[0].numel()
    gained = torch.zeros(len(x_0), dtype=torch.float64, device=x_0.device)
    for t, s in pairwise(times):
        h = process.schedule.log_snr(t) - process.schedule.log_snr(s)  # the way from t up to s, in u
        first, trace = seen(xbar, t)
        second, later = seen(_ahead(xbar, first, h), s)  # Heun: the mean of both ends
        xbar = _ahead(xbar, (first + second) / 2, h)
        gained += h * (dim - (trace + later) / 2)
    sbar = (-process.schedule.log_snr(times[-1])).exp()
    prior = -(xbar / sbar).flatten(1).square().sum(1) / 2 - dim * (sbar.log() + math.log(2 * math.pi) / 2)
    return gained + prior


def _ahead(xbar: Tensor, x_0hat: Tensor, h: Tensor) -> Tensor:
    """The flow followed for h in u: exactly, for an x_0hat that stays what it is."""
    return x_0hat + h.exp() * (xbar - x_0hat)


def _seen(
    denoiser: Callable, process: Gaussian, xbar: Tensor, t: Tensor, directions: Tensor, cond: dict
) -> tuple[Tensor, Tensor]:
    """x_0hat of the shape of xbar (B, …), and the trace (B,) of its derivative by xbar; both float64."""
    alpha, _ = process.schedule(t)
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller forbids
        x_t = (alpha * xbar).requires_grad_()
        t, cond = t.clone(), {name: torch.as_tensor(each).clone() for name, each in cond.items()}
        x_0hat = denoiser(x_t, t, **cond)
        products = [
            (torch.autograd.grad(x_0hat, x_t, each, retain_graph=True)[0] * each).flatten(1).sum(1)
            for each in directions
        ]  # v^T J v, each (B,)
    return x_0hat.detach().double(), alpha * torch.stack(products).double().mean(0)


def _directions(x_0: Tensor, noise: Noise | None, probes: int, exact: bool) -> Tensor:
    """Vectors v (K, B, …), v v^T the identity on average over K: random signs, or all axes, sqrt(dim) long."""
    if exact:
        dim = x_0[0].numel()
        axes = math.sqrt(dim) * torch.eye(dim, dtype=x_0.dtype, device=x_0.device)
        return axes.reshape(dim, 1, *x_0.shape[1:]).expand(dim, *x_0.shape)
    if noise is None:
        raise UserError("the trace needs noise for its probes: or ask for exact")
    probes = check_int("probes of the trace", probes, 1)
    return torch.stack([torch.where(noise(x_0) < 0, -1.0, 1.0).to(x_0.dtype) for _ in range(probes)])


def flow_times(process: Process, steps: int, span: tuple[float, float] = SPAN) -> Tensor:
    """Times (steps + 1,) from low to high, even in log(sigma / alpha) between the ends of `span`, float64.

    Of a discrete process: the nearest of its T times, each once, so there may be fewer; not t = 0, never trained.
    """
    low, high = span
    steps = check_int("steps of a likelihood", steps, 1)
    if not 0 < low < high < math.inf:
        raise UserError(f"a span of noise levels is two numbers above 0, the lower first, not {low} and {high}")
    u = torch.linspace(math.log(low), math.log(high), steps + 1, dtype=torch.float64)
    if process.timesteps:
        first, end = -process.schedule.log_snr(torch.tensor([1 / process.timesteps, 1.0], dtype=torch.float64)).cpu()
        ends = u[[0, -1]].clamp(first, end)
        u = torch.linspace(*ends.tolist(), steps + 1, dtype=torch.float64)
    times = process.schedule.time_at(-u).unique()
    if len(times) < 2:
        raise UserError(f"this process has no two noise levels from {low:g} to {high:g}")
    return times


def bits_per_dim(nats: Tensor, dim: int, bin_width: float) -> Tensor:
    """Bits a number (B,), for log-likelihoods in nats (B,) of `dim` numbers, of an image of grey levels.

    A level is as likely as its bin, as wide as bin_width in the units of the likelihood; averaged over `dequantise`,
    this is at least the code length of the levels themselves (Theis et al., 2016).
    """
    if dim < 1 or not 0 < bin_width < math.inf:
        raise UserError(f"bits a number need a number of numbers and a bin width above 0, not {dim} and {bin_width}")
    return -(nats + dim * math.log(bin_width)) / (dim * math.log(2))


def dequantise(images: Tensor, noise: Noise) -> Tensor:
    """uint8 images (B, …) -> (v + u) / 256 in [0, 1] with u uniform: each level spread over its bin, 1/256 wide."""
    if images.dtype != torch.uint8:
        raise UserError(f"only the 256 levels of uint8 images can be spread over their bins, not {images.dtype}")
    u = unit(noise.bits(images[0].numel()), 40)
    return (images + u.reshape(images.shape)) / 256
