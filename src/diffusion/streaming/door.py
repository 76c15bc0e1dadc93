"""Who is let in: a token, what other machines need, and how many come at a time."""

import contextlib
from ipaddress import ip_address

from diffusion.errors import UserError

TOKEN = "STREAM_TOKEN"  # the environment variable with the server's token
CLIENTS = 64  # connections at a time


def check_door(host: str, token: str | None) -> None:
    """UserError if other machines could come in without a token, or for one that is soon guessed."""
    if not is_loopback(host) and not token:
        raise UserError(f"--host {host} lets other machines in: give a --token that they have to send")
    if token and len(token) < 8:
        raise UserError("a token has at least 8 characters: it is all that keeps others out")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    with contextlib.suppress(ValueError):
        return ip_address(host.strip("[]")).is_loopback
    return host == "localhost"
