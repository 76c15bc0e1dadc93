"""How much restored images are like their originals, and how often a classifier finds the label."""

from typing import NamedTuple

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from diffusion.errors import UserError
from diffusion.method.arrays import as_labels
from diffusion.metrics.features import Extractor, as_bytes, gather
from diffusion.precision import torch_defaults


class Likeness(NamedTuple):
    """How much restored images are like their originals; means over the images of all processes."""

    ssim: float  # structural similarity (Wang et al., 2004), 1 for equal images
    rmse: float  # root of the mean squared difference of pixels in [0, 1]
    agreement: float  # share in which a classifier finds the original's label
    agreement_original: float  # the same of the originals: its own accuracy on them
    mean: float  # grey value of the restored images
    mean_original: float


@torch_defaults()
def likeness(extractor: Extractor, images: Tensor, originals: Tensor, labels: Tensor) -> Likeness:
    """Compare images (N, C, H, W) with their originals, both uint8 or in [0, 1], and labels (N,)."""
    x, y = (as_bytes(each).float() / 255 for each in (images, originals))
    if x.shape != y.shape or not len(x):
        raise UserError(f"each image needs its original: there are {tuple(x.shape)} and {tuple(y.shape)}")
    agreements = [agreement(extractor, each, labels) for each in (images, originals)]
    ssim = structural_similarity_index_measure(x, y, data_range=1.0, reduction="none").reshape(len(x))
    mean = lambda values: gather(values).double().mean().item()
    rmse = mean((x - y).square().mean((1, 2, 3))) ** 0.5
    return Likeness(mean(ssim), rmse, *agreements, *(mean(each.mean((1, 2, 3))) for each in (x, y)))


@torch_defaults()
def agreement(extractor: Extractor, images: Tensor, labels: Tensor) -> float:
    """The share of images, of all processes, in which a classifier finds the labels (N,) that they were made for."""
    if extractor.dataset == "ImageNet":
        raise UserError(f"the {extractor.name} does not know the labels of these images: use a classifier's features")
    found = extractor(images)[1].argmax(1)
    rule = "labels are integers from 0, one for each image"
    labels = as_labels(labels, rule).to(found.device)
    if labels.shape != found.shape:
        raise UserError(f"{rule}: {len(found)}, not labels of shape {tuple(labels.shape)}")
    return gather(found == labels).double().mean().item()
