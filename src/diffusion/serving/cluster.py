"""The same application in several replicas, on this machine or on a Ray cluster, behind Ray Serve."""

import signal
import threading
from collections.abc import Callable

import ray
import torch
from ray import serve

from diffusion.errors import UserError
from diffusion.serving.application import create
from diffusion.serving.catalogue import load_catalogue
from diffusion.serving.server import address
from diffusion.serving.settings import Settings


def run(settings: Settings, device: torch.device, replicas: int, tell: Callable[[str], object]) -> None:
    """Serve until SIGTERM or SIGINT; `tell` hears where, once the replicas are up.

    Each has models, a worker and a queue of its own, so a limit of the settings is one of each replica. One that dies
    is started anew; the requests that it had are answered with an error, which clients take for a reason to try again.
    RAY_ADDRESS names a cluster that is there already.
    """
    if settings.port == 0:
        raise UserError("several replicas share a port that is known: give a --port above 0")
    load_catalogue(settings.weights, torch.device("cpu"))  # what no replica could load is refused here
    stop = threading.Event()
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    serve.start(http_options={"host": settings.host, "port": settings.port, "request_timeout_s": 2 * settings.deadline})
    build = lambda: create(settings, device)  # called in each replica
    deployment = serve.deployment(serve.ingress(build)(), name="diffusion").options(
        num_replicas=replicas,
        max_ongoing_requests=1000,  # its own queue decides
        graceful_shutdown_timeout_s=settings.drain_seconds,
        ray_actor_options={"num_cpus": 1, "num_gpus": 1 if device.type == "cuda" else 0},
    )
    try:
        for number in (signal.SIGINT, signal.SIGTERM):  # now: Ray has set handlers of its own
            signal.signal(number, lambda *_: stop.set())
        serve.run(deployment.bind(), name="diffusion", route_prefix="/")
        url = address(settings.host, settings.port)
        tell(f"page    {url}/\ndocs    {url}/docs\nhealth  {url}/health\nready   {replicas} replicas")
        stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()
