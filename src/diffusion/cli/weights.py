"""Train, score and store every weight file that is shipped; what is there is skipped, what was stopped goes on."""

from argparse import Namespace

from diffusion.files import shipped_weights
from diffusion.laboratory.families import FAMILIES
from diffusion.laboratory.flags import SCORES, add_flags
from diffusion.laboratory.options import Parser, one_of, output_directories, output_directory

EXAMPLES = """examples:
  python src weights                            all of them: on two CPU cores an hour or more for most, days in all
  python src weights --only default unet        two families
  python src weights --table                    no training: write weights/README.md anew
  python src weights --only unet_matched --mean a.pth b.pth unet_few --into means     the mean of three trainings
"""


def read(argv: list[str] | None = None) -> Namespace:
    p = Parser(__doc__, EXAMPLES, "weights")
    family, families = one_of("family", FAMILIES), f"some of {', '.join(FAMILIES)} (default: all)"
    p.add_argument("--only", nargs="+", type=family, default=list(FAMILIES), metavar="FAMILY", help=families)
    into = "the folder of the finished files (default: weights/)"
    p.add_argument("--into", type=output_directory, default=str(shipped_weights()), help=into)
    p.add_argument("--rescore", action="store_true", help="train nothing; score the files that are there anew")
    mean = "train nothing; store the mean of the weights of these files as the one that --only names, scored"
    p.add_argument("--mean", nargs="+", default=[], metavar="WEIGHTS", help=mean)
    p.add_argument("--table", action="store_true", help="only write the folder's README.md anew")
    resume = {"help": "understood, not needed: what was stopped goes on"}
    out = {"type": output_directories("runs"), "help": "where runs/ is made"}
    add_flags(p, "data-root", "out", "device", "resume", out=out, resume=resume)
    add_flags(p, *SCORES)
    p.set_defaults(eval_samples=None)  # the family's
    return p.parse_args(argv)
