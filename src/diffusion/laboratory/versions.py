"""The models of `--model`, by data set: where their versions are.

dev is what training wrote last, after every epoch. main is what somebody promoted, or else what is shipped.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

from diffusion import files
from diffusion.data.registry import DATASETS
from diffusion.errors import UserError
from diffusion.laboratory.options import one_of

MODELS = ("autoencoder", "vae", "flow")
VERSIONS = ("dev", "main")
SPLITS = [name.removeprefix("EMNIST-") for name in DATASETS if name.startswith("EMNIST-")]
SHIPPED = {
    "MNIST_vae": "latent_vae.pth",
    "MNIST_flow": "latent.pth",
    "FashionMNIST_vae": "latent_fashion_vae.pth",
    "FashionMNIST_flow": "latent_fashion.pth",
}
PROMOTE = {
    "ask": "on a terminal, ask whether what was trained becomes main",
    "yes": "it does; the old main is kept beside it",
    "no": "it stays dev",
    "best": "it does if its loss on held-out training images is lower",
}


def add_model_flags(parser: Any, *models: str, version: bool = True) -> Any:
    """The group of options that say which model of which data set; `add_argument` adds more to it."""
    group = parser.add_argument_group("models by data set and kind")
    group.add_argument("--model", type=one_of("model", models), help=", ".join(models))
    dataset = next(each for each in parser._actions if each.dest == "dataset")
    dataset.type = one_of("dataset", [*DATASETS, "EMNIST"])
    group.add_argument("--split", type=one_of("split", SPLITS), help=f"of --dataset EMNIST: {', '.join(SPLITS)}")
    if version:
        help = "dev, of the last epoch, or main, promoted or shipped (default: main)"
        group.add_argument("--model-version", type=one_of("version", VERSIONS), help=help)
    return group


def dataset_of(args: Namespace) -> str:
    """The data set that --dataset and --split name; UserError if they do not go together."""
    name = args.dataset or "MNIST"
    if name == "EMNIST":
        return f"EMNIST-{args.split or 'balanced'}"
    if args.split:
        raise UserError(f"--split {args.split} goes with --dataset EMNIST")
    return name


def path_of(out: Path, name: str, version: str) -> Path:
    """Where a version of "MNIST_vae" or the like is kept, if it is there."""
    return out / {"dev": f"runs/{name}", "main": "weights"}[version] / f"{name}.pth"


def find_version(dataset: str, model: str, version: str = "main", out: Path = Path(".")) -> Path:
    """The weight file of a version; UserError, with the command that makes one, if it is not there."""
    name = f"{dataset}_{model}"
    if (path := path_of(out, name, version)).is_file():
        return path
    if version == "main" and name in SHIPPED and (shipped := files.shipped_weights() / SHIPPED[name]).is_file():
        return shipped
    train = f"python src train --dataset {dataset.replace('EMNIST-', 'EMNIST --split ')} --model {model}"
    hint = "; there is a dev: --model-version dev" if version == "main" and path_of(out, name, "dev").is_file() else ""
    raise UserError(f"there is no {version} version of the {model} of {dataset}: `{train}` makes {str(path)!r}{hint}")


def open_version(args: Namespace, *models: str) -> Path:
    """The weight file that --weights or --model names; UserError if it is neither or both, or if more is said."""
    if bool(args.weights) == bool(args.model):
        raise UserError(f"which weights? Say either --weights NAME or --model {', '.join(models)}")
    dataset = dataset_of(args)
    if args.weights and args.model_version:
        raise UserError(f"--model-version goes with --model: {args.weights!r} is one file")
    return args.weights or find_version(dataset, args.model, args.model_version or "main")
