"""Honest scores of generated images: FID, inception score and KID, with what they were measured through and against."""

import contextlib
import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from diffusion import files
from diffusion.errors import UserError, check_int
from diffusion.method.arrays import as_images
from diffusion.metrics.features import Extractor, Progress, as_bytes, gather
from diffusion.precision import torch_defaults

KEPT = 10_000  # real images whose features are kept one by one, for the KID
SPLITS = 10  # parts of the inception score
SUBSETS, SUBSET_SIZE = 100, 1000  # draws of the KID, and images in each


class Scores(NamedTuple):
    """What `score` measured, and with what. The deviations (sd) are over parts of the images, not over seeds."""

    fid: float  # Fréchet distance of the features, >= 0 (Heusel et al., 2017)
    inception_score: float  # mean over the parts (Salimans et al., 2016)
    inception_score_sd: float
    kid: float  # mean over the draws (Bińkowski et al., 2018); unbiased, so that it may be a little below 0
    kid_sd: float
    n: int  # images measured, over all processes
    n_reference: int  # real images they were compared with
    extractor: str  # its name
    sha256: str  # of its weights' file
    warning: str  # a sentence if the FID has too few images to be trusted, otherwise empty

    def __str__(self) -> str:
        return (
            f"FID {self.fid:.3f}, IS {self.inception_score:.2f} ± {self.inception_score_sd:.2f}, "
            f"KID {self.kid:.5f} ± {self.kid_sd:.5f} ({self.n:,} images against {self.n_reference:,} real, "
            f"{self.extractor}, sha256 {self.sha256[:8]}){self.warning and f'; {self.warning}'}"
        )


class PrecomputedFeatures(nn.Identity):
    """Stands where torchmetrics expects a network: what comes in are the features, computed once for all metrics."""

    def __init__(self, dim: int):
        super().__init__()
        self.num_features = dim


@dataclass(frozen=True, eq=False)
class Reference:
    """The features of real images; `of` makes one."""

    extractor: Extractor
    fid: FrechetInceptionDistance  # holds the sums over all real images
    features: Tensor  # (at most KEPT, D) of images drawn from all

    @property
    def n(self) -> int:
        """How many real images there are."""
        return int(self.fid.real_features_num_samples)

    @classmethod
    @torch_defaults()
    def of(
        cls, extractor: Extractor, images: Tensor, cache: str | Path | None = None, progress: Progress = iter
    ) -> Self:
        """Of real images (N, C, H, W), N >= 2, uint8 or in [0, 1]; kept in the folder `cache` for the next time."""
        images = as_bytes(images)
        if len(images) < 2:
            raise UserError(f"a reference needs at least 2 real images, not {len(images)}")
        digest = hashlib.sha256(f"{extractor.sha256} {tuple(images.shape)} {KEPT}".encode())
        digest.update(images.cpu().contiguous().numpy().data)
        path = cache and Path(cache) / f"reference_{digest.hexdigest()[:24]}.pth"
        network = PrecomputedFeatures(extractor.dim)
        fid = FrechetInceptionDistance(network, reset_real_features=False, sync_on_compute=False).to(extractor.device)
        with contextlib.suppress(UserError, KeyError, TypeError):  # a file that is absent, damaged, of another version
            known = files.load(path) if path else {}
            fid.load_state_dict(known["fid"])
            return cls(extractor, fid.to(extractor.device), known["features"])
        features, _ = extractor(images, progress=progress)
        for part in features.split(KEPT):  # in float64, which it turns them to, they would not all fit into memory
            fid.update(part, real=True)
        drawn = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:KEPT].to(features.device)
        reference = cls(extractor, fid, features[drawn].cpu())
        if path:
            fid.persistent(True)
            sums = {name: value for name, value in fid.state_dict().items() if name.startswith("real_")}
            try:
                files.save(path, {"kind": "reference", "fid": sums, "features": reference.features})
            except OSError as error:  # a data folder that others own, or that is full
                warnings.warn(f"the features of the real images are not kept for the next time: {error}", stacklevel=2)
        return reference


@torch_defaults()
def score(
    images: Tensor, reference: Reference, seed: int = 0, batch_size: int = 500, progress: Progress = iter
) -> Scores:
    """Compare images (N, C, H, W), uint8 or in [0, 1], with real ones. `seed` draws the parts of IS and KID.

    Under torch.distributed every process has to call: it gives its part, and gets the scores of all. UserError if the
    images are unfit, or fewer than 2.
    """
    extractor, seed = reference.extractor, check_int("a seed", seed, 0)
    features, logits = (gather(each) for each in extractor(images, batch_size, progress))
    n = len(features)
    if n < 2:
        raise UserError(f"a score needs at least 2 images, not {n}")
    with (
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(action="ignore", category=UserWarning),  # that features are kept: they are few
    ):
        torch.default_generator.manual_seed(seed)  # the metrics shuffle with it
        reference.fid.reset()  # forgets the generated images of the last score only
        reference.fid.update(features.double(), real=False)
        fid = reference.fid.compute().clamp(min=0)  # rounding takes equal sets to -1e-12
        numbers = [each.item() for each in (fid, *_inception_score(logits), *_kernel(features, reference.features))]
    few, enough = min(n, reference.n), 2 * extractor.dim
    warning = f"{few:,} images are too few for {extractor.dim} features: below {enough:,} FID is far too high"
    return Scores(*numbers, n, reference.n, extractor.name, extractor.sha256, warning if few < enough else "")


def _inception_score(logits: Tensor) -> tuple[Tensor, Tensor]:
    metric = InceptionScore(PrecomputedFeatures(logits.shape[1]), splits=SPLITS, sync_on_compute=False)
    metric.update(logits.double())
    return metric.compute()


def _kernel(features: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    network, size = PrecomputedFeatures(features.shape[1]), min(SUBSET_SIZE, len(features), len(real))
    metric = KernelInceptionDistance(network, subsets=SUBSETS, subset_size=size, sync_on_compute=False)
    metric.update(real.to(features.device), real=True)
    metric.update(features, real=False)  # float64 would take 2.5 times as long, and move it by 1e-3 of kid_sd
    return metric.compute()


def floor(images: Tensor, reference: Reference, n: int | None = None, seed: int = 0) -> Scores:
    """The score of n real images of the shuffled test split: what a perfect generator would get with as many."""
    return score(as_images(images)[:n], reference, seed)
