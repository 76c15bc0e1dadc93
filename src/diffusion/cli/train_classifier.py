"""Train the small classifier whose features the metrics compare.

python src train-classifier                        24 epochs of MNIST; some minutes on a laptop
python src train-classifier --dataset FashionMNIST --resume     go on after Ctrl-C or a kill
"""

from argparse import Namespace

from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, number, output_file


def read(argv: list[str] | None = None) -> Namespace:
    p, file = Parser(__doc__, mode="train-classifier"), output_file()
    add_flags(p, "dataset", "seed", seed={"help": "of weights, order and augmentation"})
    p.add_argument("--epochs", type=number(int, 1), default=24, help="passes over the training split")
    out = {"type": file, "default": None, "help": "the file to write (default: weights/classifier_{dataset}.pth)"}
    add_flags(p, "resume", "save-every", "data-root", "device", "out", out=out)
    p.add_argument("--state", type=file, help="where its state is kept (default: runs/classifier_{dataset}/state.pt)")
    return p.parse_args(argv)
