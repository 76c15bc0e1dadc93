"""A stream's server in a thread of this process, data that say their number, and a cable that fails when told to."""

import asyncio
import contextlib
import itertools
import socket
import threading

import torch

from diffusion.data.datasets import Dataset
from diffusion.streaming.server import Server


def numbered(n=200, name="numbers", first=0) -> Dataset:
    """Samples whose labels and first two pixels are their number."""
    number = torch.arange(first, first + n)
    images = torch.zeros(n, 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = number % 256, number // 256
    return Dataset(name, images, number, tuple(f"number {i}" for i in range(first + n)))


@contextlib.contextmanager
def serving(served, port=0, **settings):
    """(address, Server) of a server of these data sets; it is gone afterwards."""
    server, found, loop = Server(served, **settings), [], asyncio.new_event_loop()
    stop, ready = asyncio.Event(), threading.Event()

    def listen(number):
        found.append(number)
        ready.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(server.run("127.0.0.1", port, listen, stop)))
    thread.start()
    assert ready.wait(10), "no server"
    try:
        yield f"ws://127.0.0.1:{found[0]}", server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


class Cable:
    """Carries bytes to a server and back; each connection through it may have a fault, the first ones in turn.

    A fault is what happens to the answers after so many bytes: "cut", "silent" (half open: nobody says good-bye),
    "garble" (one byte is changed) or "slow".
    """

    def __init__(self, address, faults=()):
        self.faults, self.connections = iter(faults), 0
        self.target = ("127.0.0.1", int(address.rpartition(":")[2]))
        self.door = socket.create_server(("127.0.0.1", 0))
        self.address = f"ws://127.0.0.1:{self.door.getsockname()[1]}"
        self.open = [self.door]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.open:
            each.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near = self.door.accept()[0]
                far = socket.create_connection(self.target)
                self.open += [near, far]
                self.connections += 1
                fault = next(self.faults, (None, 0))
                threading.Thread(target=self._carry, args=(near, far, None, 0), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, *fault), daemon=True).start()

    def _carry(self, a, b, fault, after):
        carried = 0
        with contextlib.suppress(OSError):
            while data := a.recv(100 if fault == "slow" else 4096):
                carried += len(data)
                if fault and carried > after:
                    if fault == "silent":
                        continue
                    if fault == "cut":
                        break
                    if fault == "garble":
                        data, fault = data[:-1] + bytes([data[-1] ^ 255]), None
                b.sendall(data)
            for each in (a, b):
                each.shutdown(socket.SHUT_RDWR)


def take(batches, count):
    """The labels of so many batches, as lists."""
    return [batch.labels.tolist() for batch in itertools.islice(batches, count)]
