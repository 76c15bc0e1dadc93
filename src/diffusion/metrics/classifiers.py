"""The classifiers whose features the metrics compare, by name: which there are, and where their files lie."""

from pathlib import Path

from diffusion import files
from diffusion.data.registry import DATASETS
from diffusion.errors import UserError, unknown

CLASSIFIERS = {"mnist": "MNIST", "fashion": "FashionMNIST"}  # short names of those in weights/


def find_classifier(name: str, weights: str | Path = "weights") -> Path:
    """The file of a data set's classifier; UserError if there is none."""
    dataset = CLASSIFIERS.get(name, name)
    if dataset not in DATASETS:
        raise unknown("features", name, [*DATASETS, *CLASSIFIERS, "inception", "a classifier's .pth"])
    path = files.expand(weights) / f"classifier_{dataset}.pth"
    if not path.is_file():
        train = f"`python src train-classifier --dataset {dataset}`"
        raise UserError(f"{dataset} is measured with {str(path)!r}, which is not there: {train} makes it")
    return path


def check_features(features: str, dataset: str, labels: bool = False) -> None:
    """Raise UserError if nothing here can score that data set, or tell its `labels`: now, not when it is downloaded."""
    if dataset not in DATASETS:
        raise unknown("dataset", dataset, DATASETS)
    if features == "auto" or (labels and features == "inception"):
        find_classifier(dataset, files.shipped_weights())
