"""What people hand in, as tensors: arrays of every layout, images, labels. UserError for what is as good as none."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion.errors import UserError

KINDS = "images are uint8, uint16, or floats from 0 to 1"


def as_tensor(values: Any, rule: str, dtype: torch.dtype | None = None) -> Tensor:
    """Tensors, arrays, numbers and lists of them as one tensor in the usual memory order; UserError with the rule."""
    try:
        tensor = _stacked(values, dtype)
        if tensor.is_complex():
            raise TypeError
        return (tensor if dtype is None else tensor.to(dtype)).contiguous()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise UserError(f"{rule}, not {' '.join(repr(values).split()):.40}") from None


def _stacked(values: Any, dtype: torch.dtype | None) -> Tensor:
    if isinstance(values, Tensor):
        if values.is_meta or values.is_nested or values.is_quantized:
            raise TypeError  # no numbers, no common shape, or numbers in a code of their own
        return values.float() if values.is_floating_point() and values.itemsize == 1 else values.to_dense()
    numbers = values if isinstance(values, list | tuple) else [values]
    if all(isinstance(each, int | float) for each in numbers):  # Python's: float32, whatever torch's default is
        usual = torch.float32 if any(isinstance(each, float) for each in numbers) else None
        return torch.tensor(values, dtype=dtype or usual, device="cpu")
    if numbers is values:
        return torch.stack([_stacked(each, dtype) for each in values])
    array = np.asarray(values)
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))  # a copy that may be written to


def as_images(values: Any) -> Tensor:
    """Images as they come, unchecked; 16-bit ones as floats in [0, 1]."""
    images = as_tensor(values, "images must be a tensor, or as good as one")
    return images.float() / 65535 if images.dtype == torch.uint16 else images


def check_pixels(images: Tensor, slack: float = 1e-6) -> None:
    """UserError unless images are (N, C, H, W), uint8 or floats in [0, 1], of which rounding may take `slack`."""
    if images.ndim != 4:
        raise UserError(f"images have the shape (N, C, H, W), not {tuple(images.shape)}")
    if images.dtype == torch.bool or (images.dtype == torch.uint8 and len(images) and images.max() == 1):
        raise UserError(f"{KINDS}; of 0 and 1 alone, hand in images.float(), or 255 * images as uint8")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise UserError(f"{KINDS}, not {images.dtype}")
    if images.is_floating_point() and not ((images >= -slack) & (images <= 1 + slack)).all():  # NaN is refused, too
        found = f"these go from {images.min():g} to {images.max():g} (states of a process are decoded first)"
        raise UserError(f"{KINDS}; {found}")


def as_labels(values: Any, rule: str) -> Tensor:
    """Labels as int64 of any shape; UserError with the rule unless they are integers of at least 0."""
    labels = as_tensor(values, rule)
    if labels.is_floating_point() or labels.dtype == torch.bool or (labels.long() < 0).any():
        raise UserError(f"{rule}, not {' '.join(repr(values).split()):.40}")
    return labels.long()
