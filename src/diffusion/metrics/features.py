"""Feature extractors, whose features the metrics compare. Images in, features and logits out."""

import io
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from diffusion import files
from diffusion.errors import UserError, check_int
from diffusion.method.arrays import as_images, check_pixels
from diffusion.metrics.classifiers import find_classifier
from diffusion.networks import classifier
from diffusion.precision import torch_defaults

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"  # pytorch-fid's name; torch-fidelity has the same bytes as:
INCEPTION_CACHE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_CACHE}"
INCEPTION_SHA256 = "6726825d"  # the first 8 hex digits, as the file's name tells: no more was ever published
PATIENCE = 20.0  # seconds to wait for a silent server

Progress = Callable[[Iterable[Tensor]], Iterable[Tensor]]  # tqdm, for instance; `iter` shows nothing


def as_bytes(images: Any) -> Tensor:
    """Images (N, C, H, W), uint8, uint16 or float in [0, 1], of any layout, as uint8; UserError for anything else."""
    images = as_images(images)
    check_pixels(images)  # rounded as by a picture file: an image scores the same from memory and from disk
    return images if images.dtype == torch.uint8 else (images.float() * 255).round().clamp(0, 255).byte()


@dataclass(frozen=True, eq=False)
class Extractor:
    """A frozen network that turns images into features (N, dim) and logits (N, classes)."""

    name: str  # what to call it in a table, with the layer
    sha256: str  # of its weights' file: features are comparable only where this is equal
    dim: int
    dataset: str  # what it was trained on
    shape: tuple[int, int, int] | None  # (C, H, W) of the images it knows; None: any, grey or RGB
    device: torch.device
    forward: Callable[[Tensor], tuple[Tensor, Tensor]]  # uint8 images on the device -> features, logits

    @torch.no_grad()
    @torch_defaults()
    def __call__(self, images: Tensor, batch_size: int = 500, progress: Progress = iter) -> tuple[Tensor, Tensor]:
        """Features and logits, float32 on the device, of images fit for `as_bytes`; UserError for any other."""
        images = as_bytes(images)
        shape, batch_size = tuple(images.shape[1:]), check_int("batch_size", batch_size, 1)
        fits = shape == self.shape if self.shape else shape[0] in (1, 3)
        if not fits:
            raise UserError(f"images of shape {shape}: the {self.name} knows only {self.shape or 'grey and RGB'}")
        if not len(images) and not distributed.is_initialized():  # a process's share may be none
            raise UserError("there are no images to look at")
        parts = [self.forward(part.to(self.device)) for part in progress(images.split(batch_size))]
        features, logits = (torch.cat(part).float() for part in zip(*parts))
        return features, logits


@torch_defaults()
def extractor_for(
    name: str,
    weights: str | Path = "weights",
    device: str | torch.device = "cpu",
    inception_weights: str | Path | None = None,
) -> Extractor:
    """The features to measure a data set with: of the data set's own classifier, in the folder `weights`.

    `name` is the data set's, "mnist", "fashion", "inception", or a classifier's file X.pth. UserError if there is none.
    """
    if name == "inception":
        return _inception(files.expand(inception_weights or _find_inception(files.expand(weights))), device)
    return _classifier(files.expand(name) if name.endswith(".pth") else find_classifier(name, weights), device)


def _classifier(path: Path, device: str | torch.device) -> Extractor:
    network, facts = classifier.load(path)
    network.to(device)

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        features = network.features(images / 255)
        return features, network.head(features)

    name, dim = f"{facts['dataset']} classifier ({classifier.FEATURES}-d penultimate)", classifier.FEATURES
    return Extractor(name, files.sha256(path), dim, facts["dataset"], network.shape, torch.device(device), forward)


def gather(part: Tensor) -> Tensor:
    """The parts (N, …) of all processes, in their order; N may differ."""
    if not distributed.is_initialized():
        return part
    from torchmetrics.utilities.distributed import gather_all_tensors  # a second to import

    return torch.cat(gather_all_tensors(part))


def _inception(path: Path, device: str | torch.device) -> Extractor:
    """FID's own Inception-v3 (Heusel et al., 2017); UserError if the file's hash does not begin with INCEPTION_SHA256.

    So short a hash can be forged: the file is opened as data only, and torch-fidelity gets a copy of its tensors.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # seconds to import

    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}")
    digest = files.sha256(path)
    if not digest.startswith(INCEPTION_SHA256):
        wrong = f"its sha256 is {digest[:8]}…, not {INCEPTION_SHA256}…"
        raise UserError(f"{str(path)!r} is not FID's Inception-v3: {wrong}")
    torch.save(files.load(path), copy := io.BytesIO())
    copy.seek(0)
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], copy).to(device)
    forward = lambda images: network(images.expand(-1, 3, -1, -1))  # grey is repeated
    return Extractor("Inception-v3 (2048-d)", digest, 2048, "ImageNet", None, torch.device(device), forward)


def _find_inception(weights: Path) -> Path:
    """Inception's file in `weights` or torch's cache, or downloaded into that; UserError says what to put where."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_CACHE
    for path in (weights / INCEPTION_FILE, weights / INCEPTION_CACHE, cached):
        if path.is_file():
            return path
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # behind some firewalls no answer ever comes
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(INCEPTION_URL, str(cached), hash_prefix=INCEPTION_SHA256, progress=False)
    except (OSError, RuntimeError) as error:  # no way there, or a wrong hash
        put = f"put {INCEPTION_FILE} (from {INCEPTION_URL}) into {str(weights)!r}"
        raise UserError(f"FID's Inception-v3 cannot be downloaded ({error}): {put}, or use a classifier") from None
    finally:
        socket.setdefaulttimeout(before)
    return cached
