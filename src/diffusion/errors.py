"""Errors whose message is a sentence for the person at the keyboard, not for the programmer."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Its message is one sentence: what was wrong and what is allowed. Commands print it and exit with code 2."""


class Failure(RuntimeError):
    """Nothing was wrong with what was asked, but it failed; commands print the sentence and exit with code 1."""


def unknown(kind: str, name: object, allowed: Iterable[object]) -> UserError:
    """The error for a name that is not on the list: the list, and the nearest name if one is near."""
    allowed = [str(each) for each in allowed]
    near = {each.lower(): each for each in allowed}
    guess = get_close_matches(str(name).lower(), near, n=1, cutoff=0.5)
    hint = f" — did you mean {near[guess[0]]!r}?" if guess else ""
    return UserError(f"unknown {kind} {str(name)!r}{hint} (allowed: {', '.join(allowed)})")
