"""Draw digits with shipped weights, then train a model for two minutes and watch it learn to draw its own."""

from argparse import Namespace

from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, number, output_directories


def read(argv: list[str] | None = None) -> Namespace:
    p = Parser(__doc__, mode="quickstart")
    p.add_argument("--minutes", type=number(float, 1e-3), default=2.0, help="of training")
    out = {"type": output_directories("runs", "Plots", "contents")}
    seed = {"default": None, "help": "of weights, order and noise (default: 0)"}
    add_flags(p, "seed", "out", "data-root", "device", "resume", "limit-steps", "save-every", out=out, seed=seed)
    add_flags(p, "eval-samples", eval_samples={"default": 1000})
    return p.parse_args(argv)
