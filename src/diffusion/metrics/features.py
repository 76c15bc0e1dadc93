"""Feature extractors: what the metrics look through. Images in, features and logits out."""

import io
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed
from torchmetrics.utilities.distributed import gather_all_tensors

from diffusion import files
from diffusion.errors import UserError, unknown
from diffusion.networks import classifier

CLASSIFIERS = {"mnist": "MNIST", "fashion": "FashionMNIST"}  # short names of those in weights/

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"  # pytorch-fid's name; torch-fidelity has the same bytes as:
INCEPTION_CACHE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_CACHE}"
INCEPTION_SHA256 = "6726825d"  # the first 8 hex digits, as the file's name tells: no more was ever published
PATIENCE = 20.0  # seconds to wait for a silent server

Progress = Callable[[Iterable[Tensor]], Iterable[Tensor]]  # tqdm, for instance; `iter` shows nothing


def as_bytes(images: Tensor) -> Tensor:
    """Images (N, C, H, W), uint8 or float in [0, 1], as uint8; UserError for anything else.

    Floats are rounded to 256 levels as a picture file would: an image scores the same from memory and from disk.
    """
    if images.ndim != 4:
        raise UserError(f"images of shape {tuple(images.shape)}: the metrics need (N, C, H, W)")
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise UserError(f"images of type {images.dtype}: the metrics need uint8, or floats in [0, 1]")
    if images.numel():
        low, high = (edge.item() for edge in images.aminmax())  # a single NaN makes both NaN
        if low != low:
            raise UserError("images with NaN: the metrics need floats in [0, 1], or uint8")
        if low < -1e-6 or high > 1 + 1e-6:
            raise UserError(f"images in [{low:g}, {high:g}]: the metrics need [0, 1] or uint8, so decode them first")
    return (images.float() * 255).round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Extractor:
    """A frozen network that turns images into features (N, dim) and logits (N, classes)."""

    name: str  # what to call it in a table, with the layer
    sha256: str  # of its weights' file: features are comparable only where this is equal
    dim: int
    dataset: str  # what it was trained on
    shape: tuple[int, int, int] | None  # (C, H, W) of the images it knows; None: any, grey or RGB
    device: torch.device
    look: Callable[[Tensor], tuple[Tensor, Tensor]]  # uint8 images on the device -> features, logits

    @torch.no_grad()
    def __call__(self, images: Tensor, batch_size: int = 500, progress: Progress = iter) -> tuple[Tensor, Tensor]:
        """Features and logits, float32 on the device, of images fit for `as_bytes`; UserError for any other."""
        images = as_bytes(images)
        shape = tuple(images.shape[1:])
        if self.shape and shape != self.shape:
            raise UserError(f"images of shape {shape}: the {self.name} knows only {self.shape}")
        if shape[0] not in (1, 3):
            raise UserError(f"images of {shape[0]} channels: the {self.name} knows only 1 or 3")
        with torch.autocast(self.device.type, enabled=False):  # a caller's bfloat16 would change the scores
            seen = [self.look(some.to(self.device)) for some in progress(images.split(batch_size))]
        features, logits = (torch.cat(part).float() for part in zip(*seen))
        return features, logits


def load_extractor(
    features: str,
    weights: str | Path = "weights",
    inception_weights: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> Extractor:
    """One of "mnist" and "fashion" (classifiers in the folder `weights`), "inception", or a classifier's file.

    Inception's weights are `inception_weights` if given, else a file in `weights` or torch's cache, else downloaded.
    """
    if features in CLASSIFIERS:
        return extractor_for(CLASSIFIERS[features], weights, device)
    if features == "inception":
        return from_inception(Path(inception_weights) if inception_weights else find_inception(Path(weights)), device)
    if not features.endswith(".pth"):
        raise unknown("features", features, [*CLASSIFIERS, "inception", "a classifier's .pth"])
    return from_classifier(Path(features), device)


def extractor_for(dataset: str, weights: str | Path = "weights", device: str | torch.device = "cpu") -> Extractor:
    """The default for a data set: the classifier of it in the folder `weights`; UserError if there is none."""
    return from_classifier(find_classifier(dataset, weights), device)


def find_classifier(dataset: str, weights: str | Path = "weights") -> Path:
    """The file of a data set's classifier; UserError if there is none."""
    path = Path(weights) / f"classifier_{dataset}.pth"
    if not path.is_file():
        train = f"`python src train-classifier --dataset {dataset}`"
        raise UserError(f"{dataset} is measured with {str(path)!r}, which is not there: {train} makes it")
    return path


def from_classifier(path: Path, device: str | torch.device = "cpu") -> Extractor:
    """Look through a file of `python src train-classifier`; UserError if it is none."""
    network, facts = classifier.load(path)
    network.to(device)

    def look(images: Tensor) -> tuple[Tensor, Tensor]:
        features = network.features(images / 255)
        return features, network.head(features)

    name = f"{facts['dataset']} classifier ({classifier.FEATURES}-d penultimate)"
    digest = files.sha256(path)
    return Extractor(name, digest, classifier.FEATURES, facts["dataset"], network.shape, torch.device(device), look)


def gather(part: Tensor) -> Tensor:
    """The parts (N, …) of all processes, in their order; N may differ."""
    return torch.cat(gather_all_tensors(part)) if distributed.is_initialized() else part


# --- Inception ---


def from_inception(path: Path, device: str | torch.device = "cpu", sha256: str = INCEPTION_SHA256) -> Extractor:
    """Look through FID's own Inception-v3 (Heusel et al., 2017); UserError unless the file's hash begins with `sha256`.

    So short a hash can be forged, so the file is opened as data only, and torch-fidelity, which would run what is in
    it, gets a fresh copy of its tensors.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # seconds to import

    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}")
    digest = files.sha256(path)
    if not digest.startswith(sha256):
        raise UserError(f"{str(path)!r} is not FID's Inception-v3: its sha256 is {digest[:8]}…, not {sha256[:8]}…")
    torch.save(files.load(path), copy := io.BytesIO())
    copy.seek(0)
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], copy).to(device)
    look = lambda images: network(images.expand(-1, 3, -1, -1))  # grey is repeated
    return Extractor("Inception-v3 (2048-d)", digest, 2048, "ImageNet", None, torch.device(device), look)


def find_inception(weights: Path) -> Path:
    """Where Inception's weights are, downloaded into torch's cache if nowhere; UserError says what to put where."""
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
