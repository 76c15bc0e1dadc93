"""The server of pictures with captions, or shards of them."""

import asyncio
import math
import sys
from argparse import Namespace

from diffusion.data.sources import load
from diffusion.laboratory.progress import progress_bar
from diffusion.laboratory.stopping import on_stop
from diffusion.streaming.server import Served, Server

SHOWN = 0.5  # seconds between two looks at how much was served


def main(args: Namespace) -> None:
    served: Served = {}
    for name in dict.fromkeys(args.dataset):
        print(f"reading {name}", flush=True)
        train = load(name, "train", args.data_root, samples=args.samples)
        served[name] = {"train": train, "test": load(name, "test", args.data_root)}
    if args.write_shards:
        return write_shards(served, args)
    server = Server(served, token=args.token, seed=args.seed, clients=args.clients)
    asyncio.run(serve(server, args))
    print(f"\nserved {server.samples:,} samples")


def write_shards(served: Served, args: Namespace) -> None:
    """Write each data set into a folder of its own, and say where. A signal leaves nothing unfinished."""
    from diffusion.streaming import shards  # not above: Hugging Face's datasets take two seconds to import

    on_stop(lambda number: sys.exit(128 + number))
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
