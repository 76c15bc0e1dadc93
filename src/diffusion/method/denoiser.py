"""Denoisers answer one question: given x_t and t (and maybe a condition), what is x_0?"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.errors import UserError
from diffusion.method.process import append_dims
from diffusion.precision import computes_bf16

LOSSES: dict[str, Callable] = {"l2": F.mse_loss, "l1": F.l1_loss}

# Every target is p x_0 + q eps with numbers p, q of (alpha, sigma).
TARGETS: dict[str, Callable[[Tensor, Tensor], tuple]] = {
    "eps":      lambda alpha, sigma: (0, 1),            # Ho et al. (2020)
    "x_0":      lambda alpha, sigma: (1, 0),
    "v":        lambda alpha, sigma: (-sigma, alpha),   # Salimans & Ho (2022)
    "velocity": lambda alpha, sigma: (-1, 1),           # Liu et al. (2023): d x_t / d t on straight lines
}  # fmt: skip


class Denoiser(nn.Module):
    """A network that regresses x_0 itself: the restorer R of cold diffusion."""

    def __init__(self, network: nn.Module, loss: str = "l2", precision: str = "fp32"):
        super().__init__()
        self.network, self.criterion, self.precision = network, LOSSES[loss], precision

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The estimate of x_0, float32 of the shape of x_t (B, C, H, W); t is (B,) or ()."""
        return self.predict(x_t, t, cond)

    def loss(self, x_0: Tensor, eps: Tensor, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The mean loss () of images x_0 (B, C, H, W), degraded with the noise eps to x_t at times t (B,)."""
        return self.criterion(self.predict(x_t, t, cond), self.regression_target(x_0, eps, t))

    def predict(self, x_t: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """The network's output, float32; inside, it runs in its own precision if the processor has it."""
        t = t.float().expand(len(x_t)).to(x_t.device)
        bf16 = self.precision == "bf16" and computes_bf16(x_t.device)
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=bf16):
            return self.network(x_t.float(), t, cond).float()

    def regression_target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network is to answer."""
        return x_0

    def null(self, cond: Tensor) -> Tensor:
        """The condition that says nothing, of the shape of `cond`."""
        return self.network.null(cond)


class Clipped(nn.Module):
    """A denoiser whose answers stay in the range of images, as in Ho et al. (2020).

    Near t = 1, x_0 is x_t - sigma eps divided by an alpha of 0.006: a small error of eps would throw it far outside.
    """

    def __init__(self, denoiser: Callable[..., Tensor], low: float, high: float):
        super().__init__()
        self.denoiser, self.low, self.high = denoiser, low, high

    def forward(self, x_t: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        return self.denoiser(x_t, t, **cond).clamp(self.low, self.high)


class GaussianDenoiser(Denoiser):
    """A network that regresses `target`, for x_t = alpha x_0 + sigma eps."""

    def __init__(self, network: nn.Module, schedule: nn.Module, target: str = "eps", **kwargs):
        super().__init__(network, **kwargs)
        self.schedule, self.target, self.coefficients = schedule, target, TARGETS[target]
        if target == "eps" and schedule(torch.ones(()))[0] < 1e-6:
            raise UserError(
                "target 'eps' says nothing of x_0 at t = 1 where this schedule has alpha = 0: use v, velocity or x_0"
            )

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        # Solve  x_t = alpha x_0 + sigma eps,  out = p x_0 + q eps  for x_0.
        out = self.predict(x_t, t, cond)
        if self.target == "x_0":
            return out
        alpha, sigma = self.schedule(t)
        p, q = self.coefficients(alpha, sigma)
        scale = torch.as_tensor(q * alpha - p * sigma)
        return (append_dims(torch.as_tensor(q), x_t) * x_t - append_dims(sigma, x_t) * out) / append_dims(scale, x_t)

    def regression_target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        p, q = (append_dims(torch.as_tensor(each), x_0) for each in self.coefficients(*self.schedule(t)))
        return p * x_0 + q * eps
