"""Show a trained model in four pictures: degrading, DDPM and DDIM samples, a trajectory; and time both samplers."""

from argparse import Namespace

from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, number, output_directory


def read(argv: list[str] | None = None) -> Namespace:
    p = Parser(__doc__, mode="demo")
    count = {"type": number(int, 1), "default": 8, "help": "samples of each sampler"}
    add_flags(p, "weights", "preset", "count", weights={"default": "unet"}, count=count)
    p.add_argument("--ddpm-steps", type=number(int, 2), default=1000, help="of the slow sampler")
    p.add_argument("--ddim-steps", type=number(int, 2), default=50, help="of the fast one")
    p.add_argument("--snapshots", type=number(int, 2), default=6, help="states of a trajectory that are shown")
    out = {"type": output_directory, "default": "contents", "help": "the folder of the four pictures"}
    add_flags(p, "guidance-scale", "seed", "data-root", "device", "out", out=out, guidance_scale={"default": 1.0})
    return p.parse_args(argv)
