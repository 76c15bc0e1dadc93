"""A client of version 1.0, for EIR's servers. They have no cursor, so what they serve is gathered, then trained on."""

import base64
import hashlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from diffusion.data import captions
from diffusion.data.datasets import Dataset
from diffusion.data.registry import DATASETS
from diffusion.errors import Failure, UserError, unknown
from diffusion.streaming.client import find_proxy
from diffusion.streaming.eir import VERSION, decode
from diffusion.streaming.protocol import MOST_BYTES, Refused, hear, say

MOST = 60_000  # samples that are gathered
BATCH = 256
HELD_OUT = 10  # one sample in so many, chosen by its content, is never trained on


@dataclass(frozen=True)
class Gathered:
    """Pictures (C, H, W) uint8 and captions, in the order of the sha256 of their content: the server's may change."""

    samples: list[tuple[str, Tensor, str]]

    def load(
        self, name: str, split: str = "train", root: str | Path = "", device: Any = "cpu", samples: int | None = None
    ) -> Dataset:
        """Those to train on or, one in ten, those to test with. UserError if they are not of that data set's kind."""
        shape, said = self.samples[0][1].shape, [text for _, _, text in self.samples]
        if name in DATASETS:
            classes = DATASETS[name].classes
            if strangers := set(said) - set(classes):
                raise unknown("label", min(strangers), classes)
            labels = torch.tensor([classes.index(text) for text in said])
        else:
            classes = ("", *sorted({word for text in said for word in captions.split(text)}))
            labels = captions.encode(said, classes, max(1, *(len(captions.split(text)) for text in said)))
        if any(image.shape != shape for _, image, _ in self.samples):
            raise UserError("the pictures of that stream are not all of one shape")
        held = torch.tensor([int(digest[:8], 16) % HELD_OUT == 0 for digest, _, _ in self.samples])
        chosen = held if split == "test" else ~held
        images = torch.stack([image for _, image, _ in self.samples])
        return Dataset(name, images[chosen], labels[chosen], classes).to(device)


def gather(
    url: str,
    token: str | None = None,
    *,
    most: int = MOST,
    timeout: float = 30,
    patience: float = 60,
) -> Gathered:
    """What a server has, up to `most` samples, each once.

    Failure for a server that does not answer, has no samples, or sends what is none.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else None
    settings = {"max_size": 2 * MOST_BYTES, "open_timeout": timeout, "proxy": find_proxy(url)}
    try:
        with connect(url, additional_headers=headers, **settings) as connection:
            found, known = dict[str, tuple[Tensor, str]](), 0
            for digest, image, text in _samples(connection, timeout, patience):
                known = known + 1 if digest in found else 0
                found[digest] = image, text
                if len(found) == most or known > len(found) + BATCH:  # it says no end, and begins again
                    break
    except (OSError, TimeoutError, ConnectionClosed, InvalidHandshake, Refused) as error:
        raise Failure(f"the stream {url} broke off: {error}") from None
    return Gathered([(digest, *found[digest]) for digest in sorted(found)])


def _samples(connection: ClientConnection, timeout: float, patience: float) -> Iterator[tuple[str, Tensor, str]]:
    """The digest, picture and caption of each sample that comes, until the server says that these were all."""
    ask = lambda *words, **more: _ask(connection, timeout, *words, **more)
    ask("handshake", "handshake", version=VERSION, worker_id=0)
    inputs = ask("getInfo", "info").get("inputs")
    image, caption = _named(inputs, "image", "array"), _named(inputs, "sequence", "tabular")
    began, came = time.monotonic(), False
    for pause in itertools.chain((0.1, 0.2, 0.5, 1.0), itertools.repeat(2.0)):
        while (batch := ask("getData", "data", {"batch_size": BATCH})) not in ([], ["terminate"], {}):
            if not isinstance(batch, list):
                raise Refused("data", "its samples are not a list")
            came = True
            yield from (_read(sample, image, caption, inputs) for sample in batch)
        if came:
            return
        if time.monotonic() - began > patience:  # another client may just have taken them all, and reset
            raise Refused("empty", "it has no samples")
        time.sleep(pause)


def _ask(connection: ClientConnection, timeout: float, kind: str, wanted: str, payload: Any = None, **more: Any) -> Any:
    """The payload of the answer. What else the server says is not for us: it tells everybody of every reset."""
    connection.send(say(kind, payload, **more))
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        message = hear(connection.recv(timeout=left))
        if message["type"] == wanted:
            return message.get("payload", {})
        if message["type"] == "error":
            raise Refused("error", str(message.get("payload"))[:200])
    raise TimeoutError(f"no answer to {kind} in {timeout:g} s")


def _named(inputs: Any, *kinds: str) -> str:
    """The first input of one of these kinds."""
    for name, about in inputs.items() if isinstance(inputs, dict) else ():
        if isinstance(about, dict) and about.get("type") in kinds:
            return name
    raise Refused("info", f"it offers no input of type {' or '.join(kinds)}")


def _read(sample: Any, image: str, caption: str, inputs: dict[str, Any]) -> tuple[str, Tensor, str]:
    """A sample's digest, picture and caption; Refused if it lacks one."""
    try:
        content, text = sample["inputs"][image], sample["inputs"][caption]
        text = str(next(iter(text.values()))) if isinstance(text, dict) else text
        if inputs[image]["type"] == "image":
            picture = decode(content)
        else:
            raw = np.frombuffer(base64.b64decode(content, validate=True), "<f4").reshape(inputs[image]["shape"])
            picture = torch.from_numpy(raw * 255).round().byte() if raw.min() >= 0 and raw.max() <= 1 else None
        assert picture is not None and picture.dim() == 3 and isinstance(text, str)
    except (KeyError, TypeError, ValueError, StopIteration, AssertionError):
        raise Refused(
            "sample", "a sample has no picture (C, H, W), of [0, 1] if it is an array, or no caption"
        ) from None
    digest = hashlib.sha256(repr((tuple(picture.shape), text)).encode() + picture.numpy().tobytes())
    return digest.hexdigest(), picture, text
