"""Denoisers answer one question: given x_t and t (and maybe a condition), what is x_0?"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.method.process import append_dims
from diffusion.method.schedule import Schedule
from diffusion.precision import computes_bf16

Cond = Tensor | None  # a condition for each sample (B, …), such as its label; None: unconditional
Denoise = Callable[..., Tensor]  # (x_t, t, cond) -> x_0: a Denoiser, or what wraps one

LOSSES: dict[str, Callable] = {"l2": F.mse_loss, "l1": F.l1_loss}
TARGETS: dict[str, Callable] = {  # (alpha, sigma) -> p and q of the target p x_0 + q eps
    "eps": lambda alpha, sigma: (0, 1),  # Ho et al. (2020)
    "x_0": lambda alpha, sigma: (1, 0),
    "v": lambda alpha, sigma: (-sigma, alpha),  # Salimans & Ho (2022)
    "velocity": lambda alpha, sigma: (-1, 1),  # Liu et al. (2023): d x_t / d t on straight lines
}


class Denoiser(nn.Module):
    """A network that regresses `target`, for x_t = alpha x_0 + sigma eps; target x_0 needs no schedule.

    The network is a module (x, t, cond) -> tensor of x's shape. For cold diffusion, this is the restorer R.
    """

    def __init__(
        self, network: Any, schedule: Schedule | None = None, target: str = "x_0", loss: str = "l2", bf16: bool = False
    ):
        super().__init__()
        self.network, self.schedule, self.target, self.bf16 = network, schedule, target, bf16
        self.criterion = LOSSES[loss]

    @property
    def coefficients(self) -> Callable:
        return TARGETS[self.target]  # looked up, not kept: a lambda cannot be pickled

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        """The estimate of x_0, float32 of the shape of x_t (B, C, H, W); t is (B,) or ()."""
        # Solve  x_t = alpha x_0 + sigma eps,  out = p x_0 + q eps  for x_0.
        out = self.predict(x_t, t, cond)
        if self.target == "x_0" or self.schedule is None:
            return out
        alpha, sigma = self.schedule(t)
        p, q = self.coefficients(alpha, sigma)
        q, sigma, determinant = (append_dims(each, x_t) for each in (q, sigma, q * alpha - p * sigma))
        return (q * x_t - sigma * out) / determinant

    def loss(self, x_0: Tensor, eps: Tensor, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        """The mean loss () of images x_0 (B, C, H, W), degraded with the noise eps to x_t at times t (B,)."""
        return self.criterion(self.predict(x_t, t, cond), self.regression_target(x_0, eps, t))

    def regression_target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network's output is compared with."""
        if self.target == "x_0" or self.schedule is None:
            return x_0
        p, q = (append_dims(each, x_0) for each in self.coefficients(*self.schedule(t)))
        return p * x_0 + q * eps

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The network's output, float32; inside, it runs in bfloat16 if that is wanted and the processor has it."""
        t = t.float().expand(len(x_t)).to(x_t.device)
        bf16 = self.bf16 and computes_bf16(x_t.device)
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=bf16):
            return self.network(x_t.float(), t, cond).float()

    def for_sampling(self) -> "Denoiser":
        """Itself, or where it runs in bfloat16 on a CPU a copy with such weights, which no call has to cast again."""
        if not self.bf16 or (device := next(self.parameters()).device).type != "cpu" or not computes_bf16(device):
            return self
        kept = copy.deepcopy(self)
        for layer in kept.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.to(torch.bfloat16)
        kept.network.to(memory_format=getattr(self.network, "layout", torch.preserve_format))
        return kept

    def for_derivatives(self) -> "Denoiser":
        """A copy of the same weights that runs in float32: derivatives of bfloat16 are of no use."""
        plain = copy.copy(self)
        plain.bf16 = False
        return plain

    def null(self, cond: Tensor) -> Tensor:
        """The condition of the unconditional estimate, of the shape of `cond`."""
        return self.network.null(cond)


class Clipped(nn.Module):
    """A denoiser whose estimates are clipped to the range of images, as in Ho et al. (2020).

    Near t = 1, x_0 is x_t - sigma eps divided by an alpha of 0.006: a small error of eps would throw it far outside.
    """

    def __init__(self, denoiser: Denoise, low: float, high: float):
        super().__init__()
        self.denoiser, self.low, self.high = denoiser, low, high

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        return self.denoiser(x_t, t, cond).clamp(self.low, self.high)
