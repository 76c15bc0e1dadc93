"""Consistency distillation (Song et al., 2023): a denoiser learns where a teacher's path from x_t ends, in one call."""

import torch
from torch import Tensor

from diffusion.method.denoiser import Cond, Denoise
from diffusion.method.process import append_dims
from diffusion.method.schedule import Schedule

EARLIEST = 1e-3  # a time before which a network is not asked: x_t is x_0, and nothing is left to say


def towards(schedule: Schedule, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """DDIM's step to times s (B,) from x_t (B, C, H, W) at times t (B,) above 0: exact, if x_0 stays what it is."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    kept, new = sigma_s / sigma_t, alpha_s - alpha_t * sigma_s / sigma_t
    return append_dims(kept, x_t) * x_t + append_dims(new, x_t) * x_0


def neighbour(denoiser: Denoise, schedule: Schedule, x_t: Tensor, t: Tensor, s: Tensor, cond: Cond = None) -> Tensor:
    """x_s (B, C, H, W) on the path of the denoiser's ODE through x_t: a step of Heun, or a plain one to s = 0."""
    x_0 = denoiser(x_t, t, cond)
    last, later = s == 0, s.clamp(min=EARLIEST)
    weight = torch.where(last, 0.0, schedule(t)[1] / schedule(later)[1] / 2)  # as in sampler.heun
    x_0_later = denoiser(towards(schedule, x_t, x_0, t, later), later, cond)
    return towards(schedule, x_t, x_0.lerp(x_0_later, append_dims(weight, x_t)), t, s)
