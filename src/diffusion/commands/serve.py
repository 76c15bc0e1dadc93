"""The server of models, in this process or in several."""

import logging
from argparse import Namespace

import torch

from diffusion.errors import UserError
from diffusion.laboratory.device import open_device
from diffusion.serving.application import create
from diffusion.serving.server import Server, listen
from diffusion.serving.settings import Settings


def main(args: Namespace) -> int | None:
    settings = args.settings
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("diffusion.serving").setLevel(logging.INFO)
    device = open_device(settings.device)
    if args.replicas > 1:
        run_cluster(settings, device, args.replicas)
        return 0
    door = listen(settings.host, settings.port)
    server = Server(create(settings, device), settings.host, settings.port, tell)
    server.run(sockets=[door])
    if server.engine.error:
        raise server.engine.error
    return 0


def run_cluster(settings: Settings, device: torch.device, replicas: int) -> None:
    try:
        from diffusion.serving import cluster  # Ray is a package that few need
    except ModuleNotFoundError:
        raise UserError("--replicas needs Ray: pip install -r requirements-cluster.txt") from None
    cluster.run(settings, device, replicas, tell)


def tell(text: str) -> None:
    print(text, flush=True)
