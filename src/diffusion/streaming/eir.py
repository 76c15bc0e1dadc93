"""Version 1.0 of the stream, that of EIR (github.com/arnor-sigurdsson/EIR), served as its clients speak it.

A client opens a connection for each thing it wants; the order and the place in it belong to the connection. What it
validates with is told once, for all its later connections.
"""

import asyncio
import base64
import contextlib
import io
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from websockets.asyncio.server import ServerConnection

from diffusion.data import captions
from diffusion.data.batches import permutation
from diffusion.data.datasets import Dataset
from diffusion.errors import unknown
from diffusion.streaming.protocol import Refused, hear, say

VERSION = "1.0"
MOST_BYTES = 8_000_000  # of an answer: clients take messages of up to ten million
MOST_RUNS = 1000  # whose ids to validate with are kept
MOST_PIXELS = 2048 * 2048  # of a picture
USUAL = 32  # samples of an answer, if nobody says how many


class Host(Protocol):
    """What a session needs of its server."""

    served: dict[str, dict[str, Dataset]]
    held: dict[str, frozenset[str]]
    seed: int
    orders: int
    samples: int


class Session:
    """One connection. Requests are answered one after the other: while the client does not read, none is read of it."""

    def __init__(self, host: Host, connection: ServerConnection):
        self.host, self.connection = host, connection
        path = connection.request.path  # /NAME?run=… asks for a data set, and tells apart the runs of one machine
        self.client = f"{connection.remote_address[0]} {path}"
        name = path.partition("?")[0].strip("/") or next(iter(host.served))
        if name not in host.served:
            raise Refused("unknown", str(unknown("dataset", name, host.served)))
        self.name, self.data = name, host.served[name]["train"]  # the held-out split is never served here
        self.epoch: int | None = None
        self.rest = iter(())

    async def talk(self, message: dict[str, Any]) -> None:
        """Answer the first message and all that follow, until the client leaves. Refused for another version."""
        await self._answer(message)
        async for text in self.connection:
            await self._answer(hear(text))

    async def _answer(self, message: dict[str, Any]) -> None:
        kind, payload = message["type"], message.get("payload")
        payload = payload if isinstance(payload, dict) else {}
        if kind == "handshake":
            if message.get("version") != VERSION:
                raise Refused(
                    "version", f"the versions spoken here are 1.0 and 2.0, not {message.get('version')!r:.40}"
                )
            await self.connection.send(say("handshake", version=VERSION))
        elif kind == "getData":
            samples = await asyncio.to_thread(self._next, payload.get("batch_size", message.get("batch_size")))
            self.host.samples += len(samples)
            await self.connection.send(say("data", samples or ["terminate"]))
        elif kind == "reset":  # of this connection alone: another client may be in the middle of its epoch
            self._begin()
            for reply in ("resetConfirmation", "reset"):  # the client waits for both
                await self.connection.send(say(reply, {"message": "the next sample is the first"}))
        elif kind in self.REPLIES:
            reply, payload = self.REPLIES[kind](self, payload)
            await self.connection.send(say(reply, payload))
        else:
            what = str(unknown("message", kind, ("handshake", "getData", "reset", *self.REPLIES)))
            await self.connection.send(say("error", {"message": what}))

    def _info(self, payload: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        image = {"type": "image", "shape": list(self.data.images.shape[1:])}
        caption = {"type": "sequence", "shape": None}
        return "info", {"inputs": {"image": image, "caption": caption}, "outputs": {"image": image}}

    def _hold_out(self, payload: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        ids = payload.get("validation_ids")
        if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
            raise Refused("request", "setValidationIds takes a list of ids in validation_ids")
        if self.client not in self.host.held and len(self.host.held) >= MOST_RUNS:
            raise Refused("limit", f"{MOST_RUNS} runs have held samples out already")
        self.host.held[self.client] = frozenset(ids)
        return "validationIdsConfirmation", {"message": f"{len(ids)} samples are held out"}

    def _status(self, payload: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "status", {"message": f"serving {self.name}", "samples_served": self.host.samples}

    def _heartbeat(self, payload: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "heartbeat", {}

    REPLIES = {"getInfo": _info, "setValidationIds": _hold_out, "status": _status, "heartbeat": _heartbeat}

    # --- Samples ---

    def _begin(self) -> None:
        """Go to the start of this connection's order: another one for each, the same after a reset."""
        if self.epoch is None:
            self.epoch, self.host.orders = self.host.orders, self.host.orders + 1
        self.rest = self._samples()

    def _samples(self) -> Iterator[dict[str, Any]]:
        for index in permutation(len(self.data), self.host.seed, self.epoch or 0).tolist():
            name = f"{self.name}-{index}"  # clients make file names of it
            if name not in self.host.held.get(self.client, ()):
                image = encode(self.data.images[index])
                inputs = {"image": image, "caption": caption(self.data.labels[index], self.data.classes)}
                yield {"inputs": inputs, "target_labels": {"image": {"image": image}}, "sample_id": name}

    def _next(self, batch_size: Any) -> list[dict[str, Any]]:
        """So many samples, or what fits into a message, or what is left."""
        if self.epoch is None:
            self._begin()
        count = batch_size if isinstance(batch_size, int) and batch_size > 0 else USUAL
        each = 3 * self.data.images[0].numel() + 1000  # bytes of a sample, at most: twice the picture in base64
        return list(islice(self.rest, min(count, max(1, MOST_BYTES // each))))


def encode(image: Tensor) -> str:
    """A picture (C, H, W) uint8 as PNG in base64."""
    return base64.b64encode(png(image)).decode()


def png(image: Tensor) -> bytes:
    """A picture (C, H, W) uint8 as a file."""
    file = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(file, "PNG", compress_level=1)
    return file.getvalue()


def decode(text: str) -> Tensor | None:
    """The picture (C, H, W) uint8 in a file that PIL knows, in base64: grey, or else RGB; None if there is none."""
    with contextlib.suppress(ValueError, TypeError, OSError, SyntaxError, Image.DecompressionBombError):
        image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
        if image.width * image.height <= MOST_PIXELS:
            pixels = np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
            return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()
    return None


def caption(label: Tensor, classes: tuple[str, ...]) -> str:
    """What a label says: the name of a class (), or the words of a caption (length,)."""
    return captions.decode(label[None], classes)[0] if label.dim() else classes[int(label)]
