"""Encode a data set with an autoencoder: mean and log-variance of every image's latents, in a file."""

from argparse import Namespace

from diffusion.laboratory import versions
from diffusion.laboratory.flags import NOT_NEEDED, add_flags
from diffusion.laboratory.options import Parser, one_of, output_file

EXAMPLES = """examples:
  python src encode-dataset --dataset MNIST --model vae           with the main version: your own or the shipped one
  python src encode-dataset --weights latent_vae --part test      with any weight file of an autoencoder
"""


def read(argv: list[str] | None = None) -> Namespace:
    p = Parser(__doc__, EXAMPLES, "encode-dataset")
    changes = {"dataset": {"default": None}, "batch_size": NOT_NEEDED}
    add_flags(p, "weights", "dataset", "data-root", "batch-size", "device", **changes)
    versions.add_model_flags(p, "autoencoder", "vae")
    p.add_argument("--part", type=one_of("part", ["train", "test"]), default="train", help="train or test images")
    out = "the file to write (default: data/latents/DATASET_PART_CODEC.pth, where training looks for it)"
    p.add_argument("--out", type=output_file(".pth"), help=out)
    return p.parse_args(argv)
