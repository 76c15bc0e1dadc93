"""Denoisers answer one question: given x_t and t (and maybe a condition), what is x_0?"""

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
    """A network that regresses x_0 itself: the restorer R of cold diffusion."""

    network: Any  # a module: (x, t, cond) -> tensor of x's shape; `null` if it is conditional

    def __init__(self, network: nn.Module, loss: str = "l2", precision: str = "fp32"):
        super().__init__()
        self.network, self.criterion, self.precision = network, LOSSES[loss], precision

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        """The estimate of x_0, float32 of the shape of x_t (B, C, H, W); t is (B,) or ()."""
        return self.predict(x_t, t, cond)

    def loss(self, x_0: Tensor, eps: Tensor, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        """The mean loss () of images x_0 (B, C, H, W), degraded with the noise eps to x_t at times t (B,)."""
        return self.criterion(self.predict(x_t, t, cond), self.regression_target(x_0, eps, t))

    def predict(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """The network's output, float32; inside, it runs in its own precision if the processor has it."""
        t = t.float().expand(len(x_t)).to(x_t.device)
        bf16 = self.precision == "bf16" and computes_bf16(x_t.device)
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=bf16):
            return self.network(x_t.float(), t, cond).float()

    def regression_target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network's output is compared with."""
        return x_0

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


class GaussianDenoiser(Denoiser):
    """A network that regresses `target`, for x_t = alpha x_0 + sigma eps."""

    def __init__(self, network: nn.Module, schedule: Schedule, target: str, loss: str = "l2", precision: str = "fp32"):
        super().__init__(network, loss, precision)
        self.schedule, self.target, self.coefficients = schedule, target, TARGETS[target]

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond = None) -> Tensor:
        # Solve  x_t = alpha x_0 + sigma eps,  out = p x_0 + q eps  for x_0.
        out = self.predict(x_t, t, cond)
        if self.target == "x_0":
            return out
        alpha, sigma = self.schedule(t)
        p, q = self.coefficients(alpha, sigma)
        determinant = append_dims(q * alpha - p * sigma, x_t)
        return (append_dims(q, x_t) * x_t - append_dims(sigma, x_t) * out) / determinant

    def regression_target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        p, q = self.coefficients(*self.schedule(t))
        return append_dims(p, x_0) * x_0 + append_dims(q, x_0) * eps
