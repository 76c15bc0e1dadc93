"""One address, whatever is behind it: a server of either version, or a folder of shards."""

from collections.abc import Callable
from pathlib import Path

import torch

from diffusion.data.batches import Source
from diffusion.streaming import remote
from diffusion.streaming.client import Client


class Stream:
    """Data from elsewhere; `load` stands in the place of data.sources.load."""

    def __init__(self, address: str, notify: Callable[[str], object] = lambda text: None):
        """UserError for an address that is none; Failure if nobody answers there."""
        self.client = Client(address, notify=notify)

    def load(
        self,
        name: str,
        split: str = "train",
        root: str | Path = "",
        device: torch.device | str = "cpu",
        samples: int | None = None,
    ) -> Source:
        """A split of a data set; UserError if it is not there."""
        return remote.load(self.client, name, split, root, device, samples)

    def on_wait(self, waiting: Callable[[], object]) -> None:
        """Have `waiting` called every second while a server keeps a step waiting; it may raise."""
        self.client.waiting = waiting
