"""Whether samples are real-looking, all that is real, and new: precision, recall, nearest neighbours."""

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.errors import UserError, check_int
from diffusion.metrics.features import as_bytes
from diffusion.metrics.scores import Reference
from diffusion.precision import torch_defaults


class Coverage(NamedTuple):
    """Whether samples are real-looking, and whether they are all that is real."""

    precision: float  # share of samples that lie among real images
    recall: float  # share of real images that lie among samples


@torch_defaults()
def coverage(images: Tensor, reference: Reference, k: int = 3) -> Coverage:
    """Improved precision and recall (Kynkäänniemi et al., 2019) of images (N, C, H, W), uint8 or in [0, 1].

    An image lies among others if it is nearer to one of them than that one's k-th neighbour. As many of each count.
    """
    features, _ = reference.extractor(images)
    count = min(len(features), len(reference.features))
    if count <= check_int("k", k, 1):
        raise UserError(f"coverage by the k-th neighbour, k = {k}, needs {k + 1} images and as many real ones: {count}")
    made, real = features[:count], reference.features[:count].to(features.device)
    return Coverage(_share_among(made, real, k), _share_among(real, made, k))


def _share_among(some: Tensor, others: Tensor, k: int) -> float:
    """The share of `some` (N, D) that lie within the k-nearest-neighbour ball of at least one of `others` (M, D)."""
    near = lambda part: torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = [near(part).kthvalue(k + 1, dim=1).values for part in others.split(500)]  # 0 is the image itself
    radius = torch.cat(nearest)
    inside = [(near(part) <= radius).any(1) for part in some.split(500)]
    return torch.cat(inside).double().mean().item()


@torch_defaults()
def neighbours(images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """(distance, index), each (N,): the nearest of `others` (M, C, H, W) to each image, by RMSE of pixels in [0, 1]."""
    images, others = as_bytes(images), as_bytes(others)
    if images.shape[1:] != others.shape[1:] or not len(others):
        found = f"{tuple(images.shape)} among {tuple(others.shape)}"
        raise UserError(f"neighbours are sought among images of the same shape, not {found}")
    x, y = ((each.float() / 255).flatten(1) for each in (images, others))
    distance, index = (torch.cat(parts) for parts in zip(*(torch.cdist(part, y).min(1) for part in x.split(250))))
    return distance / x.shape[1] ** 0.5, index
