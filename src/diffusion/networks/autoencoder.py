"""A small convolutional autoencoder, variational (Kingma & Welling, 2014) or plain: images to latents and back."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LOG_VAR = (-12.0, 6.0)  # of a latent: far outside of what training finds


class Autoencoder(nn.Module):
    """Images (B, C, H, W) float in [0, 1], H and W multiples of 4, to latents (B, latent, 1, 1) and back.

    `encoder` are the channels at half of the resolution, at a quarter, and of what is flattened; `decoder` those of
    what is unflattened, at a quarter of the resolution and at half of it.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        latent: int = 36,
        encoder: Sequence[int] = (16, 32, 8),
        decoder: Sequence[int] = (12, 48, 24),
        variational: bool = True,
    ):
        super().__init__()
        channels, height, width = shape
        (half, quarter, flat), (stem, low, high) = encoder, decoder
        size = (height // 4) * (width // 4)
        self.variational = variational
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, half, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(half, quarter, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(quarter, quarter, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(quarter, flat, 1),
            nn.Flatten(),
            nn.Linear(flat * size, 2 * latent if variational else latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, stem * size),
            nn.Unflatten(1, (stem, height // 4, width // 4)),
            nn.Conv2d(stem, low, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(low, 4 * high, 1),
            nn.PixelShuffle(2),
            nn.GELU(),
            nn.Conv2d(high, high, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(high, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | images), each (B, latent, 1, 1); of a plain one the code, and -inf."""
        code = self.encoder(images)[:, :, None, None]  # (B, latent or 2 latent, 1, 1)
        if not self.variational:
            return code, torch.full_like(code, -torch.inf)
        mean, log_var = code.chunk(2, dim=1)
        return mean, log_var.clamp(*LOG_VAR)

    def decode(self, z: Tensor, contrast: float = 1.0) -> Tensor:
        """Images (B, C, H, W) in (0, 1) of latents (B, latent, 1, 1).

        With contrast 1 the mean of p(images | z), grey where an edge may lie here or there; more decides for one side.
        """
        return (contrast * self.decoder(z.flatten(1))).sigmoid()
