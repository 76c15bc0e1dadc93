"""uvicorn, stopped in good order."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from diffusion.errors import UserError
from diffusion.serving.guard import Guard


class Server(uvicorn.Server):
    """At the first SIGTERM or SIGINT it accepts nothing more and finishes what is open; the second ends it at once.

    uvicorn's own would close the door first, so that nobody is told 503, and then die of the signal.
    """

    def __init__(self, application: Guard, host: str, port: int, tell: Callable[[str], object] = lambda text: None):
        self.engine, self.tell = application.app.state.engine, tell
        self.engine.after_loading = self.loaded
        super().__init__(
            uvicorn.Config(
                application,
                host,
                port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=5,
                timeout_keep_alive=30,
                server_header=False,
            )
        )

    @property
    def url(self) -> str:
        return address(*self.servers[0].sockets[0].getsockname()[:2])

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.tell(f"page    {self.url}/\ndocs    {self.url}/docs\nhealth  {self.url}/health")

    def loaded(self) -> None:
        if self.engine.error:
            self.should_exit = True
        else:
            self.tell(f"ready   {len(self.engine.catalogue.by_name)} models")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread():  # where no signals arrive
            yield
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def stop(self, number: int) -> None:
        """At that signal."""
        if hasattr(self, "draining"):
            self.engine.close()
            os._exit(128 + number)  # Python's own end would wait for the worker, or take torch away beneath it
        self.draining = asyncio.get_running_loop().create_task(self.drain())

    async def drain(self) -> None:
        await self.engine.drain()
        self.should_exit = True


def address(host: str, port: int) -> str:
    """The URL under which this machine reaches it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; UserError if that cannot be."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"nothing can be served at {host}:{port}: {error.strerror or error}") from None
