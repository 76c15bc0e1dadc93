"""Samplers: the process run backwards, as generators of states.

All take the process's step; they differ in how well they estimate the x_0 it heads for. The step is exact for an x_0
that does not change (Lu et al., 2022), so a second-order solver is the same step with an x_0 for its middle.
"""

from collections import deque
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from diffusion.method.denoiser import Cond, Denoise
from diffusion.method.process import Draw, Gaussian, Process


@torch.no_grad()
def sample(
    denoiser: Denoise, process: Process, x: Tensor, times: Tensor, noise: Draw = torch.randn_like, cond: Cond = None
) -> Iterator[Tensor]:
    """Run the process backwards from x, yielding every state (B, C, H, W) down to x_0. One network call a step.

    x is x_1 from process.prior, or any x_t; `times` are process.times(steps), or others from that t down to 0.
    """
    for t, s in pairwise(times):
        x = process.step(x, denoiser(x, t, cond), t, s, noise)
        yield x


@torch.no_grad()
def heun(
    denoiser: Denoise, process: Gaussian, x: Tensor, times: Tensor, noise: Draw = torch.randn_like, cond: Cond = None
) -> Iterator[Tensor]:
    """As `sample`, but with x_0 estimated at both ends of each step: second order, two network calls a step.

    On straight lines it is Heun's trapezoid of the velocities; a plain mean of both x_0 would lose as much as it gains,
    as x_0 settles in the last steps. The step to t = 0 is a plain one, as in Karras et al. (2022), Algorithm 1.
    """
    for t, s in pairwise(times):
        x_0 = denoiser(x, t, cond)
        if s > 0:
            weight = process.schedule(t)[1] / process.schedule(s)[1] / 2  # from 1/2, for small steps
            x_0 = x_0.lerp(denoiser(process.step(x, x_0, t, s, noise), s, cond), weight.to(x_0))
        x = process.step(x, x_0, t, s, noise)
        yield x


@torch.no_grad()
def multistep(
    denoiser: Denoise, process: Gaussian, x: Tensor, times: Tensor, noise: Draw = torch.randn_like, cond: Cond = None
) -> Iterator[Tensor]:
    """As `sample`, but with x_0 extrapolated from the last two: second order at one network call a step.

    DPM-Solver++(2M) (Lu et al., 2022, Algorithm 2); with eta = 1, its SDE form. The step to t = 0 is a plain one.
    """
    before: tuple[Tensor, Tensor] | None = None  # x_0 and log-SNR one step ago
    for t, s in pairwise(times):
        x_0, now = denoiser(x, t, cond), process.schedule.log_snr(t)
        ahead = x_0
        if before and s > 0:
            h, h_before = process.schedule.log_snr(s) - now, now - before[1]  # inf after a start at alpha = 0
            ahead = x_0 + (h / (2 * h_before)).to(x.dtype) * (x_0 - before[0])
        x = process.step(x, ahead, t, s, noise)
        before = x_0, now
        yield x


@torch.no_grad()
def one_late(
    denoiser: Denoise, process: Process, x: Tensor, times: Tensor, noise: Draw = torch.randn_like, cond: Cond = None
) -> Iterator[Tensor]:
    """As `sample`, but x, at the first of the times, is called the second; at the last, x_0 is estimated once more.

    So the coursework restores. Its networks never saw t = 1, nor t = 0, where this call takes away what is left.
    """
    for t, s in pairwise(times[1:]):
        x = process.step(x, denoiser(x, t, cond), t, s, noise)
        yield x
    yield denoiser(x, times[-1], cond)


def last(states: Iterator[Tensor]) -> Tensor:
    """The final state; the others are dropped as they come (a list of them would hold gigabytes)."""
    return deque(states, maxlen=1).pop()
