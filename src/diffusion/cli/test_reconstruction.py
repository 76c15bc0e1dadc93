"""Show what an autoencoder keeps of test images: originals, reconstructions, errors, and how large those are."""

from argparse import Namespace

from diffusion.laboratory import versions
from diffusion.laboratory.flags import NOT_NEEDED, add_flags
from diffusion.laboratory.options import Parser, number, output_file

EXAMPLES = """examples:
  python src test-reconstruction --dataset MNIST --model vae
  python src test-reconstruction --weights latent_tiny_vae --no-fid --out tiny.png
"""


def read(argv: list[str] | None = None) -> Namespace:
    p = Parser(__doc__, EXAMPLES, "test-reconstruction")
    changes = {"dataset": {"default": None}, "batch_size": NOT_NEEDED}
    add_flags(p, "weights", "dataset", "data-root", "batch-size", "device", **changes)
    versions.add_model_flags(p, "autoencoder", "vae", "flow")
    for name, help in (
        ("height", "rows of the picture, each of originals, reconstructions and errors"),
        ("width", "images"),
    ):
        p.add_argument(f"--{name}", type=number(int, 1, 100), default=2 if name == "height" else 12, help=help)
    p.add_argument(
        "--scale", type=number(float, 0.1, 10), default=0.8, help="size of an image, in inches of 100 pixels"
    )
    p.add_argument("--no-fid", action="store_true", help="leave the FID out, as where there is no classifier for it")
    add_flags(p, "features", "inception-weights")
    out = {"type": output_file(".png"), "default": "reconstruction.png", "help": "X.png, the picture"}
    add_flags(p, "out", out=out)
    return p.parse_args(argv)
