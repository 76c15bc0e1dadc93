"""Test a model on test images: its losses and, of a class-conditional flow, what labels it gives by Bayes' rule."""

from argparse import Namespace

from diffusion.laboratory import versions
from diffusion.laboratory.flags import NOT_NEEDED, add_flags
from diffusion.laboratory.options import Parser, number, output_file

EXAMPLES = """examples:
  python src test --dataset MNIST --model vae            losses on the test split
  python src test --weights latent                       labels by Bayes' rule, in some minutes
  python src test --weights latent --count 1000 --exhaustive 1000 --pixel-count 0
"""
DRAWS = (1, 16, 64)  # K of the importance-weighted bound


def read(argv: list[str] | None = None) -> Namespace:
    p = Parser(__doc__, EXAMPLES, "test")
    changes = {"dataset": {"default": None}, "batch_size": NOT_NEEDED}
    add_flags(p, "weights", "dataset", "data-root", "batch-size", "device", **changes)
    versions.add_model_flags(p, *versions.MODELS)
    p.add_argument("--num-workers", type=number(int, 0), default=0, help="understood, not needed: data is in memory")
    group = p.add_argument_group("Bayes' rule")
    group.add_argument("--count", type=number(int, 1), help="test images (default: all)")
    group.add_argument("--steps", type=number(int, 2), default=12, help="of the flow, two network calls each")
    group.add_argument("--exhaustive", type=number(int, 0), default=0, help="check the three stages on so many images")
    group.add_argument("--draws", type=number(int, 0), default=max(DRAWS), help="of the bound, 0 leaves it out")
    group.add_argument("--pixels", help="a pixel model to compare with (default: the data set's; its name)")
    group.add_argument("--pixel-count", type=number(int, 0), default=1000, help="… on so many images, 0 leaves it out")
    p.add_argument("--out", type=output_file(), help="append the numbers to this file, one JSON object a line")
    picture = {"type": output_file(".png"), "default": "confusion.png", "help": "X.png, the confusion matrix"}
    p.add_argument("--picture", **picture)
    return p.parse_args(argv)
