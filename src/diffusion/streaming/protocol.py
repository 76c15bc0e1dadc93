"""Version 2.0 of the stream: what is said, byte by byte (docs/stream.md). It is stateless: a request says all.

A client asks for a range of the order that a data set has under a seed; the server computes that order, so nothing is
lost with a connection, and any number of clients may share an epoch.
"""

import json
import struct
import zlib
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from diffusion.data.batches import permutation
from diffusion.data.datasets import Dataset
from diffusion.errors import UserError

VERSION = "2.0"
MOST_BYTES = 32 * 2**20  # of samples in one answer
MOST_TEXT = 4 * 2**20  # bytes of a message in JSON
IN_FLIGHT = 8  # ranges that a client asks for ahead; a server reads as many of its messages, and then waits for it
HEADER = struct.Struct(">4sIQII")  # b"RANG", the request's id, the first place, how many samples, CRC-32 of the rest
MAGIC = b"RANG"
Side = Annotated[int, Field(strict=True, ge=1, le=10_000)]
LONGEST = 200  # characters of a name or a word
Text = Annotated[str, Field(max_length=LONGEST)]
CONFIG = ConfigDict(extra="forbid")


class Refused(Exception):
    """What was asked for cannot be had: a word for programs and a sentence for people."""

    def __init__(self, code: str, sentence: str):
        super().__init__(sentence)
        self.code = code


class Damaged(Exception):
    """An answer is not what was asked for, or was damaged on its way."""


@dataclass(frozen=True)
class About:
    """What a client has to know of a split before it asks for samples."""

    __pydantic_config__ = CONFIG

    size: Annotated[int, Field(strict=True, ge=1, lt=2**40)]
    fingerprint: Text
    shape: Annotated[list[Side], Field(min_length=3, max_length=3)]  # (C, H, W)
    label_shape: Annotated[list[Side], Field(max_length=1)]  # [], or [words]
    classes: Annotated[list[Text], Field(max_length=100_000)]

    @classmethod
    def of(cls, data: Dataset) -> "About":
        shape, label_shape = list(data.images.shape[1:]), list(data.labels.shape[1:])
        return cls(len(data), data.fingerprint, shape, label_shape, list(data.classes))

    @property
    def sample_bytes(self) -> int:
        return int(np.prod(self.shape)) + 8 * int(np.prod(self.label_shape))

    @property
    def most(self) -> int:
        """Samples that one answer may hold."""
        return max(1, MOST_BYTES // self.sample_bytes)


@dataclass(frozen=True)
class Get:
    """A request for a range."""

    __pydantic_config__ = CONFIG

    id: Annotated[int, Field(strict=True, ge=0, lt=2**32)]
    dataset: Text
    split: Text
    fingerprint: Text
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] | None
    epoch: Annotated[int, Field(strict=True, ge=0, lt=2**63)]
    first: Annotated[int, Field(strict=True, ge=0, lt=2**40)]
    count: Annotated[int, Field(strict=True, ge=1, lt=2**32)]


GET, ABOUT = TypeAdapter(Get), TypeAdapter(dict[Text, dict[Text, About]])

# --- Text: {"type": …, "payload": {…}} ---


def say(kind: str, payload: Any = None, **more: Any) -> str:
    """A message in JSON."""
    return json.dumps({"type": kind, **more} | ({} if payload is None else {"payload": payload}))


def hear(text: str | bytes) -> dict[str, Any]:
    """The message of a text; Refused if it is none."""
    try:
        message = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Refused("request", 'a message is a JSON object such as {"type": "handshake", "version": "2.0"}')
    return message


def read_get(payload: Any) -> Get:
    """A request; Refused with the first field that is wrong."""
    try:
        return GET.validate_python(payload)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "payload"
        raise Refused("request", f"{where}: {first['msg'].lower()}") from None


def read_offer(message: dict[str, Any]) -> dict[str, dict[str, About]]:
    """The data sets that a server's handshake offers, by name and split; Damaged if it is none of this version."""
    try:
        return ABOUT.validate_python(message["payload"]["datasets"])
    except (ValidationError, KeyError, TypeError):
        raise Damaged("its handshake does not say what it serves") from None


def describe(data: Dataset) -> About:
    """What is said of a split to all who may want it; UserError for a word that none of them would take."""
    word = max(data.classes, key=len, default="")
    if len(word) > LONGEST:
        what = f"a word has at most {LONGEST} characters, not {len(word):,}: {word[:20]!r}…"
        raise UserError(f"{data.name} cannot be streamed: {what}")
    return About.of(data)


def offer(served: dict[str, dict[str, Dataset]]) -> str:
    """A server's handshake; UserError for data that no client would take."""
    about = {name: {split: asdict(describe(data)) for split, data in splits.items()} for name, splits in served.items()}
    return say("handshake", {"datasets": about}, version=VERSION)


# --- Bytes: the samples of a range ---


def answer(data: Dataset, get: Get) -> bytes:
    """The header, the images (count, C, H, W) uint8, their labels (count, …) int64, little-endian.

    Refused for places that there are not, and for more samples than one answer may hold.
    """
    if get.first + get.count > len(data):
        raise Refused("range", f"places {get.first} to {get.first + get.count - 1} are not below {len(data)}")
    if get.count > (most := About.of(data).most):
        raise Refused("range", f"one answer holds at most {most} of these samples, not {get.count}")
    index = permutation(len(data), get.seed, get.epoch)[get.first : get.first + get.count]
    some = data[index]
    body = some.images.numpy().tobytes() + some.labels.numpy().astype("<i8").tobytes()
    return HEADER.pack(MAGIC, get.id, get.first, get.count, zlib.crc32(body)) + body


def read_answer(frame: str | bytes, get: Get, about: About) -> tuple[Tensor, Tensor]:
    """Images (count, C, H, W) uint8 and labels (count, …) int64; Damaged unless they are what was asked for."""
    size = HEADER.size + get.count * about.sample_bytes
    if not isinstance(frame, bytes) or len(frame) != size:
        raise Damaged(f"an answer has not the {size} bytes that were asked for")
    head, body = HEADER.unpack_from(frame), frame[HEADER.size :]
    if head != (MAGIC, get.id, get.first, get.count, zlib.crc32(body)):
        raise Damaged("an answer does not belong to its request, or its checksum is wrong")
    pixels = get.count * int(np.prod(about.shape))
    images = torch.frombuffer(bytearray(body[:pixels]), dtype=torch.uint8).view(get.count, *about.shape)
    labels = torch.from_numpy(np.frombuffer(body, "<i8", offset=pixels).astype(np.int64))
    if labels.min() < 0 or labels.max() >= len(about.classes):
        raise Damaged(f"a label is not one of the {len(about.classes)} that there are")
    return images, labels.view(get.count, *about.label_shape)
