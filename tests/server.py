"""`python src serve` in the process of the tests: a real uvicorn on a free port of loopback, in a thread."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread

import httpx
import torch

from diffusion.serving.application import create
from diffusion.serving.engine import Engine
from diffusion.serving.server import Server
from diffusion.serving.settings import Settings

SRC = Path(__file__).parents[1] / "src"


def address(said: str) -> str:
    """The URL in what the server says first."""
    return said.split()[1].rstrip("/")


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
    settings = {"compile": "no"} | settings  # whatever lies in the cache of whoever runs the tests
    said: Queue[str] = Queue()
    server = Server(create(Settings(port=0, **settings), torch.device("cpu")), "127.0.0.1", 0, said.put)
    thread = Thread(target=server.run)
    thread.start()
    try:
        with Running(address(said.get(timeout=20)), server.engine, server) as client:
            client.wait(lambda: client.get("/ready").status_code == 200)
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def started(*words: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """`python src serve` as people start it, once it is ready; and its URL. `child.log` is the file that it logs to."""
    command = [sys.executable, str(SRC), "serve", "--port", "0", *words]
    env = os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as log:  # a pipe that nobody reads would stop the server once it is full
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        child.log = log
        try:
            url = address(child.stdout.readline())
            while httpx.get(f"{url}/ready").status_code != 200:
                time.sleep(0.05)
            yield child, url
        finally:
            child.kill()
            child.communicate()
