"""The server: one door for both protocols, a token, limits, and the sessions of version 2.0."""

import asyncio
import contextlib
import hmac
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from diffusion.data.datasets import Dataset
from diffusion.errors import UserError
from diffusion.streaming import protocol
from diffusion.streaming.door import CLIENTS, check_door
from diffusion.streaming.eir import Session
from diffusion.streaming.protocol import Refused

Served = dict[str, dict[str, Dataset]]  # name -> split -> data, on the CPU


class Server:
    """Serves data sets until it is told to stop; `samples` and `clients` say how much it has to do."""

    def __init__(
        self, served: Served, *, token: str | None = None, seed: int = 0, patience: float = 60, clients: int = CLIENTS
    ):
        """`seed` is of version 1.0's orders. A connection that is silent for `patience` seconds when it should speak
        is closed.
        """
        self.served, self.token, self.seed, self.patience, self.most = served, token, seed, patience, clients
        self.offer = protocol.offer(served)
        self.samples = self.clients = 0
        self.held: dict[str, frozenset[str]] = {}  # of version 1.0: client -> ids that it validates with
        self.orders = 0  # of version 1.0: how many connections had an order of their own

    async def run(self, host: str, port: int, ready: Callable[[int], object], stop: asyncio.Event) -> None:
        """Serve until `stop` is set; `ready` hears the port, which is any free one for 0. UserError if it is taken, or
        if other machines could come in without a token.
        """
        check_door(host, self.token)
        # No pings by the library: a client of version 1.0 answers them only when it needs its next batch.
        settings = {
            "max_size": protocol.MOST_TEXT,
            "max_queue": protocol.IN_FLIGHT,
            "ping_interval": None,
            "close_timeout": 2,
        }
        check = {"process_request": self._admit, "origins": [None]}  # pages in a browser send an origin
        try:
            server = await serve(self._talk, host, port, compression=None, **settings, **check)
        except OSError as error:
            raise UserError(f"nothing can be served at {host}:{port}: {error.strerror or error}") from None
        async with server:
            ready(next(iter(server.sockets)).getsockname()[1])
            await stop.wait()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """An answer in HTTP for those who may not come in."""
        if self.clients >= self.most:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{self.most} clients are here already\n")
        kind, _, sent = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer":  # clients of version 1.0 can set no headers
            sent = parse_qs(urlsplit(request.path).query).get("token", [""])[0]
        if self.token and not hmac.compare_digest(sent.strip().encode(), self.token.encode()):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong\n")
        return None

    async def _talk(self, connection: ServerConnection) -> None:
        """One connection, from its first message, which decides the version, to its end."""
        self.clients += 1
        try:
            async with asyncio.timeout(self.patience):
                first = await connection.recv()
            message = protocol.hear(first)
            if message["type"] == "handshake" and message.get("version") == protocol.VERSION:
                await self._serve_ranges(connection)
            else:
                await Session(self, connection).talk(message)
        except Refused as error:
            with contextlib.suppress(ConnectionClosed):
                await connection.send(protocol.say("error", {"code": error.code, "message": str(error)}))
        except (ConnectionClosed, TimeoutError):
            pass  # nothing is lost with a connection
        finally:
            self.clients -= 1

    # --- Version 2.0 ---

    async def _serve_ranges(self, connection: ServerConnection) -> None:
        await connection.send(self.offer)
        watch = asyncio.create_task(self._watch(connection))
        try:
            async for text in connection:
                message = protocol.hear(text)
                if message["type"] != "get":
                    raise Refused("request", f"version 2.0 asks by 'get', not by {message['type']!r:.40}")
                get = protocol.read_get(message.get("payload"))
                await connection.send(await asyncio.to_thread(protocol.answer, self._find(get), get))
                self.samples += get.count
        finally:
            watch.cancel()

    def _find(self, get: protocol.Get) -> Dataset:
        """The data that a request is about; Refused if they are not there, or changed."""
        data = self.served.get(get.dataset, {}).get(get.split)
        if data is None:
            there = ", ".join(f"{name} {split}" for name, splits in self.served.items() for split in splits)
            raise Refused("unknown", f"there is no {get.dataset!r} {get.split!r} here (there are: {there})")
        if data.fingerprint != get.fingerprint:
            raise Refused("fingerprint", f"{get.dataset} {get.split} is not what it was: its samples changed")
        return data

    async def _watch(self, connection: ServerConnection) -> None:
        """End a connection whose other side is gone without a word."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(self.patience / 3)
                try:
                    async with asyncio.timeout(self.patience):
                        await (await connection.ping())
                except TimeoutError:
                    connection.transport.abort()
                    return
