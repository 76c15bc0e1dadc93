"""How the server is run: the fields of configs/serve.yaml and the options of `python src serve`."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from diffusion.errors import UserError
from diffusion.experiment import strict_yaml
from diffusion.experiment.config import validated

Count = Annotated[int, Field(ge=1, le=10**9)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    __pydantic_config__ = ConfigDict(extra="forbid")

    weights: tuple[str, ...] = ()  # weight files or their names; none: all that are shipped
    host: str = "127.0.0.1"  # 0.0.0.0 is every network this machine is in
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000  # 0: any that is free
    token: str | None = None  # what clients send as `Authorization: Bearer …`; a must beyond this machine
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto is the GPU if there is one
    compile: Literal["auto", "bf16", "no"] = "auto"  # networks on a CPU, once that pays; bf16: also those whose images
    # then change by bfloat16's rounding
    allow_hosts: tuple[str, ...] = ()  # names that the server goes by, beside localhost
    allow_origins: tuple[str, ...] = ()  # pages of other servers that may call this one, such as https://example.org
    max_count: Count = 64  # images a request
    max_steps: Count = 1000  # of a sampler
    max_rows: Count = 64  # of a network call: images, twice with guidance
    max_queue: Count = 100_000  # image-calls (images × network calls, twice with guidance) that are accepted to be done
    deadline: Seconds = 120.0  # seconds that a request may take
    max_body: Count = 8 * 2**20  # bytes of a request
    body_seconds: Seconds = 20.0  # seconds in which they must have arrived
    drain_seconds: Seconds = 30.0  # seconds that accepted requests are given when the server is told to stop
    eir_input: str = "image"  # names in POST /predict: of the picture asked for,
    eir_table: str = "mnist_tabular"  # … of the table with the label,
    eir_column: str = "CLASS"  # … of its column

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


SETTINGS = TypeAdapter(Settings)


def read_settings(path: Path | None, changes: dict[str, Any]) -> Settings:
    """The settings of a YAML file, changed; UserError for one that is wrong, or for an open door without a token."""
    content = {} if path is None else strict_yaml.read(path) or {}
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} has no settings: it has to hold lines such as port: 8000")
    settings = validated(SETTINGS, content | changes, Settings.__dataclass_fields__)
    if settings.token is not None and len(settings.token) < 8:
        raise UserError("a token has at least 8 characters: it is all that keeps others out")
    if not settings.is_local and not settings.token:
        raise UserError(f"--host {settings.host} lets other machines in: give a --token that they have to send")
    return settings
