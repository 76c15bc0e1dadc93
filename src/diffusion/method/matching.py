"""Distribution matching distillation (Yin et al., 2024a): a denoiser learns to draw what a teacher draws, in few calls.

Its images are to be as likely as the teacher's at every level of noise. Where they are not, two denoisers differ: the
teacher, and a critic that is trained on the images. No paths of the teacher are needed (Yin et al., 2024b).
"""

from torch import Tensor

from diffusion.method.process import append_dims


def call_time(u: Tensor, v: Tensor, most: int) -> Tensor:
    """A time (B,) at which a sampler of 1 to `most` even steps calls its denoiser, for u and v (B,) uniform in (0, 1].

    u chooses the number of steps n, and v one of its times 1/n … 1.
    """
    n = (u * most).ceil()
    return (v * n).ceil() / n


def descent(x_0: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """The gradient in drawn images x_0 (B, C, H, W) of KL(drawn || real), up to a factor for each image.

    `real` and `fake` are the x_0 that teacher and critic see in the same noisy x_0: the difference of two scores
    is theirs, times -alpha / sigma^2. The factor is that of Yin et al. (2024a), equation 8.
    """
    assert x_0.shape == real.shape == fake.shape, f"three batches of one shape, not {x_0.shape, real.shape, fake.shape}"
    scale = (x_0 - real).abs().flatten(1).mean(1).clamp(min=1e-6)
    return (fake - real) / append_dims(scale, x_0)


def surrogate(x_0: Tensor, gradient: Tensor) -> Tensor:
    """A loss () whose gradient in x_0 (B, …) is the given one, divided by the number of elements."""
    return (x_0 - (x_0 - gradient).detach()).square().mean() / 2
