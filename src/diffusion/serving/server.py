"""uvicorn, stopped in good order."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

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
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{host}:{port}"

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
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        if hasattr(self, "draining"):
            self.force_exit = self.should_exit = True
        else:
            self.draining = asyncio.get_running_loop().create_task(self.drain())

    async def drain(self) -> None:
        await self.engine.drain()
        self.should_exit = True
