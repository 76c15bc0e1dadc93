"""What stands before the application: request ids, who may ask, how much they may send. Plain ASGI."""

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders

from diffusion.serving.metrics import Metrics
from diffusion.serving.problems import Problem, of_error
from diffusion.serving.settings import Settings

log = logging.getLogger("diffusion.serving")
OPEN = ("/", "/health", "/ready", "/docs", "/openapi.json", "/favicon.ico")  # without a token, as all of /static/
Message = dict[str, Any]
Receive, Send = Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]


class Guard:
    """Every request through all checks, every answer with its id; what is refused is refused before it is read."""

    def __init__(self, app: Callable, settings: Settings, metrics: Metrics):
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, began, status = uuid.uuid4().hex, time.perf_counter(), 499  # 499: gone before an answer
        scope.setdefault("state", {})["request_id"] = request_id

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"], headers["x-content-type-options"] = request_id, "nosniff"
                if scope["path"] == "/" or scope["path"].startswith("/static/"):
                    headers["cache-control"] = "no-cache"  # kept, but asked about: a new version is seen at once
            await send(message)

        try:
            self.check_sender(scope)
            await self.app(scope, await self.whole_body(scope, receive), sending)
        except Problem as problem:
            await problem.response()(scope, receive, sending)
        except Exception as error:
            log.exception("%s failed", request_id)
            if status == 499:
                await of_error(error).response()(scope, receive, sending)
        finally:
            seconds, route = time.perf_counter() - began, getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(scope["method"], route, status).inc()
            self.metrics.latency.labels(route).observe(seconds)
            log.info("%s %s %s %d %.0f ms", request_id, scope["method"], scope["path"], status, 1000 * seconds)

    def check_sender(self, scope: Message) -> None:
        """Problem for a wrong Host, Origin or token."""
        headers, settings, path = Headers(scope=scope), self.settings, scope["path"]
        host = headers.get("host", "")
        name = parts(f"//{host}").hostname or ""
        known = ("localhost", "127.0.0.1", "::1", settings.host, *settings.allow_hosts)
        local = name in (each.lower() for each in known)
        if not settings.token and not local:  # or a page elsewhere could have its name lead to this machine
            raise Problem(403, f"this server does not go by the name {name!r:.80}", code="wrong_host")
        origin = headers.get("origin")
        if origin and parts(origin).netloc != host and origin not in settings.allow_origins:
            raise Problem(403, f"pages of {origin!r:.80} may not call this server", code="wrong_origin")
        if not settings.token or path in OPEN or path.startswith("/static/") or scope["method"] == "OPTIONS":
            return
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), settings.token.encode()):
            detail = "this server wants its token: Authorization: Bearer … (of OpenAI's client, its api_key)"
            raise Problem(401, detail, code="invalid_api_key", www_authenticate="Bearer")

    async def whole_body(self, scope: Message, receive: Receive) -> Receive:
        """The body, read before anything is begun, then as if it came now; Problem if it is too large or too slow."""
        most, length = self.settings.max_body, Headers(scope=scope).get("content-length", "0")
        too_large = Problem(413, f"a request has at most {most:,} bytes", code="body_too_large", connection="close")
        if length.isdigit() and int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            detail = f"the body did not arrive within {self.settings.body_seconds:g} s"
            raise Problem(408, detail, code="body_too_slow", connection="close", x_should_retry="false") from None
        messages: Iterator[Message] = iter([{"type": "http.request", "body": bytes(body), "more_body": False}])

        async def replay() -> Message:
            return next(messages, None) or await receive()

        return replay


def parts(url: str) -> SplitResult:
    """Those of a URL, empty of one that is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
