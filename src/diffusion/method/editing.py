"""Editing: pictures filled in, varied, blended and taken back to their noise. All in the units of the process."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion.errors import UserError, check_int
from diffusion.method.process import Draw, Gaussian, Process, append_dims
from diffusion.method.sampler import last, sample


class Reconstruction(NamedTuple):
    """A round trip x_0 -> x_1 -> x_0."""

    x_1: Tensor  # (B, C, H, W)
    x_0: Tensor  # (B, C, H, W) where the way back ended
    rmse: Tensor  # (B,) how far that is from where it began


def inpaint(
    denoiser: Callable[..., Tensor],
    process: Gaussian,
    x_0: Tensor,
    mask: Tensor,  # (B or 1, 1, H, W), bool or 0/1: 1 is to be filled, 0 is kept; under the 1s x_0 is never read
    times: Tensor,  # from 1 down to 0, as of process.times(steps)
    noise: Draw,
    resample: int = 1,
    **cond,
) -> Iterator[Tensor]:
    """Fill x_0 (B, C, H, W) under the mask, yielding every state; the last holds the kept pixels bit for bit.

    RePaint (Lugmayr et al., 2022, Algorithm 1): each step, its known part replaced by x_0 degraded to the same time, is
    undone and taken again, `resample` times in all, until the filled part agrees with the known. UserError for a
    mask that does not fit x_0, for less than one pass, and for processes whose degraded pixels mix known and unknown.
    """
    _gaussian(process, "filling in")
    _descending(times)
    if times[0] != 1:
        raise UserError(f"filling in begins at t = 1, not {float(times[0]):g}: what is to be filled is all unknown")
    passes = check_int("resample, the passes a step,", resample, 1)
    return _repaint(denoiser, process, x_0, _mask(mask, x_0), times, noise, passes, cond)


@torch.no_grad()
def _repaint(
    denoiser: Callable,
    process: Gaussian,
    x_0: Tensor,
    mask: Tensor,
    times: Tensor,
    noise: Draw,
    passes: int,
    cond: dict,
) -> Iterator[Tensor]:
    x = torch.where(mask, process.prior(x_0, noise), process.degrade(x_0, times[0], noise(x_0)))
    for t, s in pairwise(times):
        for more in reversed(range(passes if s > 0 else 1)):
            x = process.step(x, denoiser(x, t, **cond), t, s, noise)
            known = process.degrade(x_0, s, noise(x_0)) if s > 0 else x_0  # a table's t = 0 is not quite clean
            x = torch.where(mask, x, known)
            if more:
                x = noisier(process, x, s, t, noise)
        yield x


def noisier(process: Gaussian, x_s: Tensor, s: Tensor, t: Tensor, noise: Draw) -> Tensor:
    """A draw of x_t given x_s at s < t: q(x_t | x_s), Ho et al. (2020), equation 2, over any distance."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = process.schedule(s), process.schedule(t)
    kept = alpha_t / alpha_s
    return kept * x_s + (sigma_t**2 - (kept * sigma_s) ** 2).clamp(min=0).sqrt() * noise(x_s)


def vary(
    denoiser: Callable[..., Tensor],
    process: Process,
    x_0: Tensor,
    strength: float,
    steps: int,
    noise: Draw,
    loop: Callable[..., Iterator[Tensor]] = sample,
    **cond,
) -> Iterator[Tensor]:
    """Degrade x_0 (B, C, H, W) to t = strength and come back in `steps` steps, yielding every state.

    SDEdit (Meng et al., 2022), for every process: a strength near 0 keeps x_0, one of 1 keeps nothing of it that the
    process does not. UserError for a strength outside (0, 1] and for more steps than the process has below it.
    """
    _encoded(x_0)
    times = times_from(process, strength, steps)
    x_t = process.degrade(x_0, times[0], noise(x_0) if process.adds_noise else None)
    return loop(denoiser, process, x_t, times, noise, **cond)


def times_from(process: Process, t: float, steps: int) -> Tensor:
    """The (steps + 1,) float64 times from t in (0, 1] down to 0, evenly; of a discrete process, multiples of 1/T."""
    if isinstance(t, str) or not 0 < t <= 1:
        raise UserError(f"strength is a time above 0 (which would keep the picture) and up to 1, not {t}")
    T = process.timesteps
    first = max(1, round(t * T)) if T else t
    steps = check_int(f"steps from t = {t:g}", steps, 1, first if T else None)
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64) * first
    return times.round() / T if T else times


def slerp(a: Tensor, b: Tensor, weight: Tensor | float) -> Tensor:
    """From a (weight 0) to b (weight 1), both (B, …), along the arc between them; weight is () or (B,).

    Shoemake (1985), over all numbers of a sample: noise stays as strong as noise is, where the straight line would pass
    too near to 0. It is the straight line where a and b point the same way, or opposite ways: no arc is the shortest.
    """
    if a.shape != b.shape or a.dim() < 2:
        raise UserError(f"only latents of one shape (B, …) can be blended, not {_shape(a)} and {_shape(b)}")
    weight = _weights(weight, a.device)
    if weight.dim() > 1 or weight.numel() not in (1, len(a)):
        raise UserError(f"{len(a)} pairs of latents need one weight, or one each, not {_shape(weight)}")
    p, q = (F.normalize(each.double().flatten(1)) for each in (a, b))
    angle = 2 * torch.atan2((p - q).norm(dim=1), (p + q).norm(dim=1))  # Kahan's: acos would lose half the digits near 0
    sine = angle.sin()
    flat = sine < 1e-6
    first, second = (
        torch.where(flat, share, (share * angle).sin() / sine.where(~flat, 1)) for share in (1 - weight, weight)
    )  # (B,)
    return append_dims(first, a) * a + append_dims(second, b) * b


def interpolate(a: Tensor, b: Tensor, weights: Tensor | list[float]) -> Tensor:
    """Latents x_1 (K, C, H, W) on the arc from a (C, H, W) to b, one for each of the weights (K,) from 0 to 1."""
    weights = _weights(weights, a.device)
    if weights.dim() != 1 or not len(weights):
        raise UserError(f"weights are a list of numbers from 0 to 1, not of shape {_shape(weights)}")
    if a.shape != b.shape:
        raise UserError(f"only latents of one shape can be blended, not {_shape(a)} and {_shape(b)}")
    return slerp(*(each.expand(len(weights), *each.shape) for each in (a, b)), weights)


def invert(
    denoiser: Callable[..., Tensor],
    process: Gaussian,
    x_0: Tensor,
    times: Tensor,  # from 1 (or less) down to 0, as of process.times(steps); walked upwards
    refine: int = 0,
    **cond,
) -> Iterator[Tensor]:
    """The noise that DDIM makes x_0 (B, C, H, W) of: every state from x_0 up to x_1, the last; x_0 is not yielded.

    Song et al. (2021), section 4.3: the sampler's ODE run forwards, each hop with the x_0 seen where it begins. It
    lands a little off the way back, which sees it where the hop ends; `refine` times a hop, that end is asked as well
    (a fixed point is the exact inverse of DDIM's step). UserError for processes that are not Gaussian, or draw noise.
    """
    _gaussian(process, "the way to the noise of a picture")
    _encoded(x_0)
    _descending(times)
    if process.eta != 0:
        raise UserError(f"only a sampler that draws no noise can be run backwards: eta must be 0, not {process.eta:g}")
    if len(times) < 3:
        raise UserError(f"the way to the noise of a picture takes 2 steps or more, not {len(times) - 1}")
    return _climb(denoiser, process, x_0, times.flip(0), check_int("refine, the corrections a step,", refine, 0), cond)


@torch.no_grad()
def _climb(
    denoiser: Callable, process: Gaussian, x: Tensor, times: Tensor, refine: int, cond: dict
) -> Iterator[Tensor]:
    for s, t in pairwise(times):
        if s > 0:
            x_t, asked = process.step(x, denoiser(x, s, **cond), s, t), refine
        else:  # t = 0 was never trained, and eps is 0 / 0 there: begin with no noise at all and correct that once
            x_t, asked = process.schedule(t)[0] / process.schedule(s)[0] * x, refine + 1
        for _ in range(asked):
            x_t = _hop(process, x, x_t, denoiser(x_t, t, **cond), s, t)
        x = x_t
        yield x


def _hop(process: Gaussian, x_s: Tensor, x_t: Tensor, x_0: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The x_t whose DDIM step to s ends on x_s, for the x_0 seen in what it was thought to be so far.

    Two ways to solve Song et al. (2021), equation 12, for x_t, both exact at their fixed point. Where noise prevails it
    is x_0 that hardly depends on x_t, elsewhere it is eps: trusting the one that does not, the iteration contracts.
    """
    (alpha_s, sigma_s), (alpha_t, sigma_t) = process.schedule(s), process.schedule(t)
    if sigma_t > alpha_t and s > 0:
        return process.step(x_s, x_0, s, t)
    eps, kept = (x_t - alpha_t * x_0) / sigma_t, alpha_t / alpha_s
    return kept * x_s + (sigma_t - kept * sigma_s) * eps


def reconstruct(
    denoiser: Callable[..., Tensor], process: Gaussian, x_0: Tensor, times: Tensor, refine: int = 0, **cond
) -> Reconstruction:
    """To the noise by `invert` and back by DDIM on the same times: how much of a picture survives that."""
    x_1 = last(invert(denoiser, process, x_0, times, refine, **cond))
    back = last(sample(denoiser, process, x_1, times, **cond))
    return Reconstruction(x_1, back, (back - x_0).flatten(1).square().mean(1).sqrt())


def _gaussian(process: Process, what: str) -> None:
    if not hasattr(process, "schedule"):
        raise UserError(f"{what} needs a process of Gaussian noise, which has a schedule; this one has none")


def _encoded(x_0: Tensor) -> None:
    if x_0.dim() != 4 or not x_0.is_floating_point():
        raise UserError(f"x_0 is a batch (B, C, H, W) of encoded images, not {_shape(x_0)} of {x_0.dtype}")


def _descending(times: Tensor) -> None:
    if times.dim() != 1 or len(times) < 2 or times[0] > 1 or times[-1] != 0 or not (times.diff() < 0).all():
        raise UserError("times must fall from 1 or less down to 0, two of them at least")


def _mask(mask: Tensor, x_0: Tensor) -> Tensor:
    """The mask as bool, on the device of x_0."""
    _encoded(x_0)
    b, _, h, w = x_0.shape
    if mask.dim() != 4 or len(mask) not in (1, b) or mask.shape[1:] != (1, h, w):
        raise UserError(f"a mask for these images has the shape ({b} or 1, 1, {h}, {w}), not {_shape(mask)}")
    if not ((mask == 0) | (mask == 1)).all():
        raise UserError("a mask holds only 1 (fill this pixel) and 0 (keep it)")
    return mask.to(x_0.device).bool()


def _weights(weights: Tensor | list[float] | float, device: torch.device) -> Tensor:
    weights = torch.as_tensor(weights, dtype=torch.float64, device=device)
    if not ((weights >= 0) & (weights <= 1)).all():
        wrong = next(w for w in weights.flatten().tolist() if math.isnan(w) or not 0 <= w <= 1)
        raise UserError(f"a weight is a number from 0 (the first) to 1 (the second), not {wrong:g}")
    return weights


def _shape(x: Tensor) -> str:
    return f"({', '.join(map(str, x.shape))})"
