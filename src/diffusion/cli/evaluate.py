"""Score a weight file on many samples: FID, IS, KID, label agreement, precision, recall, copies of training images.

A text model is examined instead: whether its pictures show what was asked for, beside real pictures and chance.
"""

from argparse import Namespace

from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, number, output_file

EXAMPLES = """examples:
  python src evaluate --weights unet                                  10,000 samples, 3 seeds: about half an hour of CPU
  python src evaluate --weights text_digits                           what its pictures show of 200 prompts of each kind
  python src evaluate --weights unet --sampler dpm --steps 10 --count 2000 --guidance-scale 2
"""
PROMPTS = 200  # of each kind, before a text model
SEEDS = 3


def read(argv: list[str] | None = None) -> Namespace:
    p = Parser(__doc__, EXAMPLES, "evaluate")
    what = f"samples of each seed (default: 10,000); of a text model, prompts of each kind (default: {PROMPTS})"
    count = {"type": number(int, 16), "default": None, "help": what}
    add_flags(p, "weights", "preset", "count", weights={"required": True}, count=count)
    seeds = f"how often all is repeated, for the spread (default: {SEEDS}; a text model is examined once)"
    p.add_argument("--seeds", type=number(int, 1), help=seeds)
    seed = {"help": "the first seed; a text model gets other prompts, too"}
    add_flags(p, "seed", "sampler", "steps", "guidance-scale", "guidance-interval", seed=seed)
    add_flags(p, "features", "inception-weights", "batch-size", "data-root", "device")
    p.add_argument("--out", type=output_file(), help="append the numbers to this file, one JSON object a line")
    sheet = "X.png: samples, each above the training image nearest to it"
    p.add_argument("--sheet", type=output_file(".png"), help=sheet)
    ship = "X.pth: a text model's weights in half precision, which are those examined, with what the exam found"
    p.add_argument("--ship", type=output_file(".pth"), help=ship)
    return p.parse_args(argv)
