"""Serve pictures and their captions over a WebSocket: to `train --stream`, and to EIR's clients."""

import asyncio
import math
import os
from argparse import Namespace

from diffusion.data.sources import CAPTIONED, NAMES, load
from diffusion.laboratory.flags import add_flags
from diffusion.laboratory.options import Parser, number, one_of, output_directory
from diffusion.laboratory.progress import progress_bar
from diffusion.laboratory.stopping import on_stop
from diffusion.streaming.client import TOKEN
from diffusion.streaming.server import CLIENTS, Served, Server, check_door

EXAMPLES = f"""examples:
  python src stream --dataset digits --samples 100000                  captioned digits, until Ctrl-C
  python src train --config configs/text_digits.yaml --stream ws://127.0.0.1:8765       in another terminal
  {TOKEN}=a-long-secret python src stream --dataset MNIST FashionMNIST --host 0.0.0.0    for other machines, too
  python src stream --dataset digits --write-shards shards              files for many machines: train … --stream shards

docs/stream.md describes both protocols, and the files.
"""
SHOWN = 0.5  # seconds between two looks at how much was served


def parser() -> Parser:
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
    return p


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    token = args.token or os.environ.get(TOKEN)
    check_door(args.host, token)
    served: Served = {}
    for name in dict.fromkeys(args.dataset):
        print(f"reading {name}", flush=True)
        train = load(name, "train", args.data_root, samples=args.samples)
        served[name] = {"train": train, "test": load(name, "test", args.data_root)}
    if args.write_shards:
        return write_shards(served, args)
    server = Server(served, token=token, seed=args.seed, clients=args.clients)
    asyncio.run(serve(server, args))
    print(f"\nserved {server.samples:,} samples")


def write_shards(served: Served, args: Namespace) -> None:
    """Write each data set into a folder of its own, and say where."""
    from diffusion.streaming import shards  # not above: Hugging Face's datasets take two seconds to import

    for name, splits in served.items():
        total, folder = sum(map(len, splits.values())), args.write_shards / name
        with progress_bar(total, f"writing {name}", unit="sample") as bar:
            for written in shards.write(splits, folder, args.shards, args.seed):
                bar.update(written)
        sizes = ", ".join(f"{len(data):,} {split}" for split, data in splits.items())
        print(f"{name}: {sizes} in {args.shards} shards each, {folder}")
    print(f"python src train … --stream {args.write_shards}")


async def serve(server: Server, args: Namespace) -> None:
    """Serve until a signal comes, showing how much."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    on_stop(lambda number: loop.call_soon_threadsafe(stop.set))

    def say(port: int) -> None:
        for name, splits in server.served.items():
            sizes = ", ".join(f"{len(data):,} {split}" for split, data in splits.items())
            print(f"{name}: {sizes}; fingerprint {splits['train'].fingerprint[:16]}")
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"serving at ws://{host}:{port}; Ctrl-C ends it", flush=True)

    async def show() -> None:
        with progress_bar(math.inf, "served", unit="sample") as bar:
            while True:
                await asyncio.sleep(SHOWN)
                if new := server.samples - bar.n:  # a log has no line for every half minute without clients
                    bar.update(new)

    showing = asyncio.create_task(show())
    try:
        await server.run(args.host, args.port, say, stop)
    finally:
        showing.cancel()
