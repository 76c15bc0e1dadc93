"""Pictures in and out: PNG and JPEG bytes, masks, sprites, base64."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion.errors import UserError

MOST_PIXELS = 2048 * 2048
FORMATS = ("PNG", "JPEG", "WEBP")


def png(image: Tensor) -> bytes:
    """An image (C, H, W) in [0, 1] as a PNG file."""
    pixels = (image * 255).round().byte().cpu().numpy()  # (C, H, W)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    picture.save(file := io.BytesIO(), "PNG", compress_level=1)
    return file.getvalue()


def base64_png(image: Tensor) -> str:
    return base64.b64encode(png(image)).decode()


def side_by_side(images: Tensor) -> Tensor:
    """Images (B, C, H, W) as one (C, H, B W)."""
    return images.permute(1, 2, 0, 3).flatten(2)


def base64_floats(image: Tensor) -> str:
    """An image (C, H, W) as base64 of little-endian float32 in that order, as EIR's clients read it."""
    return base64.b64encode(image.cpu().numpy().astype("<f4").tobytes()).decode()


@contextmanager
def _opened(data: bytes, what: str) -> Iterator[Image.Image]:
    """The picture in the bytes; UserError if it is none, or a very large one."""
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        if picture.width * picture.height > MOST_PIXELS:
            raise UserError(f"{what} has {picture.width} × {picture.height} pixels, at most 2048 × 2048 are read")
        picture.load()
        yield picture
    except UserError:
        raise
    except Exception:  # Pillow's readers raise anything
        raise UserError(f"{what} is not a whole PNG, JPEG or WebP file") from None


def read_image(data: bytes, shape: tuple[int, int, int], what: str = "image") -> Tensor:
    """A picture as (C, H, W) in [0, 1] of a model's shape, scaled to it; what is transparent is black."""
    channels, height, width = shape
    with _opened(data, what) as picture:
        rgba = picture.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
        flat = flat.convert("L" if channels == 1 else "RGB")
        if flat.size != (width, height):
            flat = flat.resize(
                (width, height), Image.Resampling.BOX if flat.width > width else Image.Resampling.BICUBIC
            )
        pixels = np.asarray(flat, np.float32) / 255
    return torch.from_numpy(pixels.copy()).reshape(height, width, channels).permute(2, 0, 1).contiguous()


def read_mask(data: bytes, shape: tuple[int, int, int]) -> Tensor:
    """Which pixels are to be redrawn, (H, W) of 0 and 1: the transparent ones, or if there are none the white ones."""
    with _opened(data, "mask") as picture:
        alpha = np.asarray(picture.convert("RGBA").resize((shape[2], shape[1]), Image.Resampling.NEAREST))[..., 3]
        grey = np.asarray(picture.convert("L").resize((shape[2], shape[1]), Image.Resampling.NEAREST))
    redrawn = alpha < 128 if (alpha < 128).any() else grey >= 128
    if not redrawn.any():
        raise UserError("mask: nothing in it is transparent or white, so nothing is to be redrawn")
    return torch.from_numpy(redrawn.astype(np.uint8))
