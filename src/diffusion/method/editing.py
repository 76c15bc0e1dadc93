"""Editing: images filled in, varied, blended and taken back to their noise. All in the units of the process."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.method.denoiser import Cond, Denoise
from diffusion.method.process import Draw, Gaussian, Process, append_dims
from diffusion.method.sampler import sample


@torch.no_grad()
def inpaint(
    denoiser: Denoise,
    process: Process,
    x_0: Tensor,
    mask: Tensor,  # (B or 1, 1, H, W), bool: True is to be filled, and there x_0 is never read
    times: Tensor,  # from 1 down to 0, as of process.times(steps)
    noise: Draw,
    resample: int = 1,
    cond: Cond = None,
) -> Iterator[Tensor]:
    """Fill x_0 (B, C, H, W) where the mask is True, yielding every state; the last keeps the other pixels bit for bit.

    RePaint (Lugmayr et al., 2022, Algorithm 1): each step ends with the known pixels put back, degraded to its time. It
    is undone and repeated, `resample` times in all, so that filled and known pixels agree.
    """
    assert isinstance(process, Gaussian), "only Gaussian noise can be filled in: averages mix known and unknown pixels"
    assert times[0] == 1, f"filling in starts at t = 1, not {times[0]:g}: what is to be filled is all unknown"
    x = torch.where(mask, process.prior(x_0, noise), process.degrade(x_0, times[0], noise(x_0)))
    for t, s in pairwise(times):
        for repeats_left in reversed(range(resample if s > 0 else 1)):
            x = process.step(x, denoiser(x, t, cond), t, s, noise)
            known = process.degrade(x_0, s, noise(x_0)) if s > 0 else x_0  # a table's t = 0 is not quite clean
            x = torch.where(mask, x, known)
            if repeats_left:
                x = noisier(process, x, s, t, noise)
        yield x


def noisier(process: Gaussian, x_s: Tensor, s: Tensor, t: Tensor, noise: Draw) -> Tensor:
    """A draw of x_t given x_s at s < t: q(x_t | x_s), Ho et al. (2020), equation 2, over any distance."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = process.schedule(s), process.schedule(t)
    kept = alpha_t / alpha_s
    return kept * x_s + (sigma_t**2 - (kept * sigma_s) ** 2).clamp(min=0).sqrt() * noise(x_s)


def vary(
    denoiser: Denoise,
    process: Process,
    x_0: Tensor,
    strength: float,
    steps: int,
    noise: Draw,
    loop: Callable[..., Iterator[Tensor]] = sample,
    cond: Cond = None,
) -> Iterator[Tensor]:
    """Degrade x_0 (B, C, H, W) to t = strength and sample from there in `steps` steps, yielding every state.

    SDEdit (Meng et al., 2022), for every process: a strength near 0 keeps the image, at 1 only what the process keeps.
    """
    times = process.times(steps, start=strength)
    x_t = process.degrade(x_0, times[0], noise(x_0) if process.adds_noise else None)
    return loop(denoiser, process, x_t, times, noise, cond)


def slerp(a: Tensor, b: Tensor, weight: Tensor | float) -> Tensor:
    """From a (weight 0) to b (weight 1), both (B, …), along the arc between them; weight is () or (B,).

    Shoemake (1985), over all numbers of a sample: noise keeps its strength, of which the straight line would lose some.
    Where a and b point in the same or in opposite directions, no arc is the shortest, and it is the straight line.
    """
    assert a.shape == b.shape, f"only latents of one shape can be blended, not {tuple(a.shape)} and {tuple(b.shape)}"
    weight = torch.as_tensor(weight, dtype=torch.float64, device=a.device)
    p, q = (F.normalize(each.double().flatten(1)) for each in (a, b))
    angle = 2 * torch.atan2((p - q).norm(dim=1), (p + q).norm(dim=1))  # Kahan's: acos would lose half the digits near 0
    sine = angle.sin()
    share = lambda w: torch.where(sine < 1e-6, w, (w * angle).sin() / sine.where(sine >= 1e-6, 1))  # (B,)
    return append_dims(share(1 - weight), a) * a + append_dims(share(weight), b) * b


def interpolate(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Latents x_1 (K, C, H, W) on the arc from a (C, H, W) to b, one for each of the weights (K,) from 0 to 1."""
    return slerp(a[None], b[None], weights)


@torch.no_grad()
def invert(
    denoiser: Denoise, process: Process, x_0: Tensor, times: Tensor, refine: int = 0, cond: Cond = None
) -> Iterator[Tensor]:
    """The noise from which DDIM draws x_0 (B, C, H, W), by the same `times`: every state after x_0 up to x_1, the last.

    Song et al. (2021), section 4.3: the sampler's ODE run forwards, each step with the x_0 estimated where it starts.
    The sampler's was estimated at its end: `refine` corrections a step use that, and converge to the exact inverse.
    """
    assert isinstance(process, Gaussian) and process.eta == 0, "only a sampler that draws no noise can be run backwards"
    assert len(times) > 2, "from x_0 to its noise it takes 2 steps or more"
    x = x_0
    for s, t in pairwise(times.flip(0)):
        if s > 0:
            x_t, corrections = process.step(x, denoiser(x, s, cond), s, t), refine
        else:  # t = 0 was never trained, and eps is 0 / 0 there: begin with no noise at all and correct that once
            x_t, corrections = process.schedule(t)[0] / process.schedule(s)[0] * x, refine + 1
        for _ in range(corrections):
            x_t = corrected(process, x, x_t, denoiser(x_t, t, cond), s, t)
        x = x_t
        yield x


def corrected(process: Gaussian, x_s: Tensor, x_t: Tensor, x_0: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """A better x_t, from which DDIM's step to s ends nearer to x_s, given the estimate x_0 of the x_t so far.

    Song et al. (2021), equation 12, solved for x_t with x_0 or with eps held fixed: at high noise x_0 hardly depends on
    x_t, at low noise eps does not, and so the iteration contracts.
    """
    (alpha_s, sigma_s), (alpha_t, sigma_t) = process.schedule(s), process.schedule(t)
    if sigma_t > alpha_t and s > 0:
        return process.step(x_s, x_0, s, t)
    eps, kept = (x_t - alpha_t * x_0) / sigma_t, alpha_t / alpha_s
    return kept * x_s + (sigma_t - kept * sigma_s) * eps
