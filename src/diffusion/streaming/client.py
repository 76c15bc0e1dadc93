"""The client of version 2.0: asks for ranges ahead of their use, and over as many connections as it takes."""

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from urllib.parse import parse_qsl, urlencode, urlsplit

from torch import Tensor
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from diffusion.errors import Failure, UserError
from diffusion.streaming import protocol
from diffusion.streaming.door import TOKEN, is_loopback
from diffusion.streaming.protocol import About, Damaged, Get, Refused

SHORTEST, LONGEST = 0.05, 5.0  # seconds between two tries, at first and at last
LOST = (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, Damaged)  # after these it is worth to try again
FIRST = 10.0  # seconds for which a server is waited for that was never there
CLOSING = 1.0  # seconds that a server is given to say good-bye


class OldServer(UserError):
    """The server does not speak version 2.0."""


class Client:
    """One server. A request says all, so what is lost with a connection is asked for again over the next."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30,
        patience: float = 600,
        first_patience: float | None = None,
        notify: Callable[[str], object] = lambda text: None,
    ):
        """A server that is silent for `timeout` seconds is left and called again. It may be away for `patience` seconds
        (at first `first_patience`): `notify` hears of that, and then it is a Failure. Its token comes from the URL,
        ?token=…, or the environment. UserError for a URL that is none, OldServer if it speaks version 1.0.
        """
        self.url, self.token = split_token(url)
        self.timeout, self.patience, self.notify = timeout, patience, notify
        self.waiting: Callable[[], object] = lambda: None  # called every second while an answer is waited for
        self.offer: dict[str, dict[str, About]] = {}  # what it serves, by name and split
        absence = Absence(self, FIRST if first_patience is None else first_patience)
        while not self.offer:
            try:
                with self._connected():
                    pass
            except LOST as error:
                absence.wait(error)

    def ask(self, requests: Iterable[Get], about: About) -> Iterator[tuple[Tensor, Tensor]]:
        """The images and labels of each request for samples that are `about` so.

        UserError if the server refuses one, Failure if it stays away.
        """
        requests, asked, absence = iter(requests), deque[Get](), Absence(self, self.patience)
        while True:
            try:
                with self._connected() as connection:
                    for get in asked:  # in vain, over the connection before
                        connection.send(protocol.say("get", asdict(get)))
                    while True:
                        for get in itertools.islice(requests, protocol.IN_FLIGHT - len(asked)):
                            asked.append(get)
                            connection.send(protocol.say("get", asdict(get)))
                        if not asked:
                            return
                        answer = protocol.read_answer(self._receive_answer(connection), asked[0], about)
                        asked.popleft()
                        absence.over()
                        yield answer
            except LOST as error:
                absence.wait(error)

    @contextmanager
    def _connected(self) -> Iterator[ClientConnection]:
        """A connection, after its handshake."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else None
        settings = {"open_timeout": self.timeout, "close_timeout": CLOSING, "compression": None}
        settings |= {"proxy": find_proxy(self.url), "max_size": protocol.MOST_BYTES + protocol.MOST_TEXT}
        try:
            connection = connect(self.url, additional_headers=headers, **settings)
        except InvalidURI:
            raise UserError(f"{self.url!r} is not the address of a stream") from None
        except InvalidStatus as error:
            if error.response.status_code != 401:
                raise
            where = f"in its address (?token=…) or in the variable {TOKEN}"
            raise UserError(f"{self.url} wants its token, {where}") from None
        with connection:
            connection.send(protocol.say("handshake", version=protocol.VERSION))
            try:
                message = protocol.hear(self._receive(connection))
            except Refused as error:
                raise Damaged(str(error)) from None
            if message["type"] == "error" or message.get("version") != protocol.VERSION:
                raise OldServer(f"{self.url} does not speak version {protocol.VERSION}")
            self.offer = protocol.read_offer(message)
            yield connection

    def _receive_answer(self, connection: ClientConnection) -> bytes:
        """UserError if the server refuses what was asked for: asking again would not help."""
        answer = self._receive(connection)
        if isinstance(answer, bytes):
            return answer
        try:
            refusal = protocol.hear(answer)["payload"]
            raise UserError(f"{self.url}: {refusal['message']}")
        except (Refused, KeyError, TypeError):
            raise Damaged("text came in the place of samples") from None

    def _receive(self, connection: ClientConnection) -> bytes | str:
        """The next message; TimeoutError if there is none in time."""
        deadline = time.monotonic() + self.timeout
        while True:
            self.waiting()
            try:
                return connection.recv(timeout=min(1.0, self.timeout))
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"it is silent for {self.timeout:g} s") from None


class Absence:
    """How long a server has been away, and when it is called again."""

    def __init__(self, client: Client, limit: float):
        self.client, self.limit = client, limit
        self.began: float | None = None  # when it was lost; None: it is here
        self.pause = SHORTEST

    def over(self) -> None:
        """It answers."""
        if self.began is not None:
            self.client.notify(f"the stream {self.client.url} is back")
        self.began, self.pause = None, SHORTEST

    def wait(self, error: Exception) -> None:
        """Sleep before the next try, the longer the more there were; Failure if the limit is reached."""
        now, client = time.monotonic(), self.client
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if self.began is None:
            self.began = now
            client.notify(f"the stream {client.url} is lost ({reason}): waiting for it, for at most {self.limit:g} s")
        if now - self.began >= self.limit:
            raise Failure(f"the stream {client.url} cannot be had for {self.limit:g} s: {reason}")
        end = now + self.pause
        while (left := end - time.monotonic()) > 0:
            client.waiting()
            time.sleep(min(left, 1.0))
        self.pause = min(2 * self.pause, LONGEST)


def find_proxy(url: str) -> bool | None:
    """For websockets: None, no proxy, to a server on this machine; True, that of the environment, to any other."""
    return None if is_loopback(urlsplit(url).hostname or "") else True


def split_token(url: str) -> tuple[str, str | None]:
    """The address without its token, so that it may be shown, and the token, also of the environment.

    UserError for an address that is none of a stream.
    """
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        token = query.pop("token", None) or os.environ.get(TOKEN)
        shown = parts._replace(query=urlencode(query)).geturl()
        usable = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:  # of a port that is no number
        shown, usable = url.partition("?")[0], False
    if not usable:
        raise UserError(f"a stream is ws://HOST:PORT or wss://HOST:PORT, not {shown!r}")
    return shown, token
