"""The sampler: the process run backwards, as a generator of states."""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from diffusion.process import Draw, Process


@torch.no_grad()
def sample(
    denoiser: Callable[..., Tensor],
    process: Process,
    x: Tensor,  # the start: x_1 from process.prior, or any x_t with times that begin at its t
    times: Tensor,  # from t down to 0, as of process.times(steps)
    noise: Draw = torch.randn_like,
    **cond,
) -> Iterator[Tensor]:
    """Run the process backwards from x, yielding every state (B, C, H, W) down to x_0."""
    for t, s in pairwise(times):
        x = process.step(x, denoiser(x, t, **cond), t, s, noise)
        yield x


def last(states: Iterator[Tensor]) -> Tensor:
    """The final state; the others are dropped as they come (a list of them would hold gigabytes)."""
    return deque(states, maxlen=1).pop()
