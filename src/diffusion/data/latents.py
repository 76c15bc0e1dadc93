"""The latents of a data set's split in a file: what they were made from, how; whole, or not there at all."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from diffusion import files
from diffusion.data.datasets import Dataset
from diffusion.errors import UserError

KIND = "latents 1"


def latents_path(root: Path, dataset: str, split: str, codec: str) -> Path:
    """Where the latents of a split by the codec of that name are kept."""
    return root / "latents" / f"{dataset}_{split}_{Path(codec).stem.replace(' ', '_')}.pth"


def save_latents(path: Path, data: Dataset, split: str, posterior: Tensor, codec: str, digest: str) -> Path:
    """Write mean and log-variance (N, 2 C, H, W) of a split, and where they come from, atomically."""
    made = {"dataset": data.name, "split": split, "codec": codec, "digest": digest, "count": len(data)}
    mean, log_var = posterior.double().chunk(2, dim=1)
    made |= {"mean": mean.mean((0, 2, 3)), "std": mean.std((0, 2, 3)), "mean_variance": log_var.exp().mean((0, 2, 3))}
    return files.save(path, {"kind": KIND, **made, "posterior": posterior.cpu(), "labels": data.labels.cpu()})


def load_latents(path: Path, data: Dataset, split: str, digest: str) -> Dataset:
    """The split `data` with latents (N, 2 C, H, W) for images; UserError, with the command, if they are of another
    data set or split, or were made by other weights than those of that digest.
    """
    content = files.load(path)
    again = "make them anew: `python src encode-dataset`"
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise UserError(f"{str(path)!r} holds no latents; {again}")
    if (content["dataset"], content["split"]) != (data.name, split) or content["count"] != len(data):
        raise UserError(
            f"{str(path)!r} is of {content['dataset']} {content['split']}, not {data.name} {split}; {again}"
        )
    if content["digest"] != digest:
        raise UserError(f"the latents in {str(path)!r} are stale: their codec has other weights now; {again}")
    return replace(data, images=content["posterior"].to(data.images.device))
