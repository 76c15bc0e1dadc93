"""`python src serve` in the process of the tests: a real uvicorn on a free port of loopback, in a thread."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Thread

import httpx
import torch

from diffusion.serving.application import create
from diffusion.serving.engine import Engine
from diffusion.serving.server import Server
from diffusion.serving.settings import Settings


class Running(httpx.Client):
    """A client of a server that runs, beside its engine."""

    def __init__(self, url: str, engine: Engine, server: Server):
        super().__init__(base_url=url, timeout=60)
        self.url, self.engine, self.server = url, engine, server

    def wait(self, condition, seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, "it did not come true"
            time.sleep(0.005)


@contextmanager
def running(**settings) -> Iterator[Running]:
    urls: Queue[str] = Queue()
    server = Server(create(Settings(port=0, **settings), torch.device("cpu")), "127.0.0.1", 0, urls.put)
    thread = Thread(target=server.run)
    thread.start()
    try:
        with Running(urls.get(timeout=20), server.engine, server) as client:
            client.wait(lambda: client.get("/ready").status_code == 200)
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
