"""One address, whatever is behind it: a server of either version, or a folder of shards."""

from collections.abc import Callable
from functools import partial

from diffusion.data.batches import Source
from diffusion.errors import UserError
from diffusion.files import expand
from diffusion.streaming import eir_client, remote
from diffusion.streaming.client import Client, OldServer, split_token


class Stream:
    """Data from elsewhere: `load(name, split, root, device, samples)` stands in the place of data.sources.load."""

    def __init__(self, address: str, notify: Callable[[str], object] = lambda text: None):
        """UserError for an address that is none; Failure if nobody answers there. `notify` hears what goes on."""
        self.client: Client | None = None
        if "://" not in address:
            self.load = open_folder(address)
            return
        try:
            self.client = Client(address, notify=notify)
            self.load = partial(remote.load, self.client)
        except OldServer as old:
            notify(f"{old}: all it has is gathered first, then trained on from memory")
            gathered = eir_client.gather(*split_token(address))
            notify(f"gathered {len(gathered.samples):,} samples")
            self.load = gathered.load

    def on_wait(self, waiting: Callable[[], object]) -> None:
        """Have `waiting` called every second while a server keeps a step waiting; it may raise."""
        if self.client:
            self.client.waiting = waiting


def open_folder(address: str) -> Callable[..., Source]:
    """`load` of a folder of shards; UserError if there is no such folder."""
    folder = expand(address)
    if not folder.is_dir():
        raise UserError(f"a stream is ws://HOST:PORT or a folder of stream --write-shards, not {address!r}")
    from diffusion.streaming import shards  # not above: Hugging Face's datasets take two seconds to import

    return partial(shards.load, folder)
