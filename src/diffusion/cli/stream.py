"""Serve pictures and their captions over a WebSocket: to `train --stream`, and to EIR's clients."""

import os
from argparse import Namespace

from diffusion.data.registry import CAPTIONED, NAMES
from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, number, one_of, output_directory
from diffusion.streaming.door import CLIENTS, TOKEN, check_door

EXAMPLES = f"""examples:
  python src stream --dataset digits --samples 100000                  captioned digits, until Ctrl-C
  python src train --config configs/text_digits.yaml --stream ws://127.0.0.1:8765       in another terminal
  {TOKEN}=a-long-secret python src stream --dataset MNIST FashionMNIST --host 0.0.0.0    for other machines, too
  python src stream --dataset digits --write-shards shards              files for many machines: train … --stream shards

docs/stream.md describes both protocols, and the files.
"""


def read(argv: list[str] | None = None) -> Namespace:
    p = Parser(__doc__, EXAMPLES, "stream")
    what = {"nargs": "+", "default": ["digits"], "help": f"one or more of {', '.join(NAMES)} (default: digits)"}
    add_flags(p, "dataset", dataset={"type": one_of("dataset", NAMES), **what})
    samples = f"pictures to train on, of {', '.join(CAPTIONED)} (default: their usual number, or all)"
    p.add_argument("--samples", type=number(int, 1), help=samples)
    p.add_argument("--host", default="127.0.0.1", help="the address to listen at; other machines need a token")
    p.add_argument("--port", type=number(int, 0, 65535), default=8765, help="0: any that is free")
    token = f"what clients have to send (default: the variable {TOKEN}, which no list of processes shows)"
    p.add_argument("--token", help=token)
    p.add_argument("--clients", type=number(int, 1, 10_000), default=CLIENTS, help="connections at a time, at most")
    folder = "write WebDataset shards into this folder instead, a folder for each data set"
    p.add_argument("--write-shards", type=output_directory, metavar="FOLDER", help=folder)
    p.add_argument("--shards", type=number(int, 1, 100_000), default=16, help="of each split; processes divide them")
    seed = {"help": "of the order in shards and in version 1.0; clients of version 2.0 say theirs"}
    add_flags(p, "seed", "data-root", seed=seed)
    args = p.parse_args(argv)
    args.token = args.token or os.environ.get(TOKEN)
    check_door(args.host, args.token)
    return args
