"""Errors whose message is a sentence for the person at the keyboard, not for the programmer."""

import math
import operator
from collections.abc import Callable, Iterable
from difflib import get_close_matches

MOST_LISTED = 100  # of the names that are allowed; of more, the NEAREST
NEAREST = 12


class UserError(ValueError):
    """Its message is one sentence: what was wrong and what is allowed. Commands print it and exit with code 2."""


class Failure(RuntimeError):
    """It failed though the request was right; commands print the sentence and exit with code 1."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether it is for want of memory: torch's own, on a CPU, is a RuntimeError."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)


def unknown(kind: str, name: object, allowed: Iterable[object], meant: str | None = None) -> UserError:
    """The error for a name that is not on the list: the list, and what was `meant`, or the nearest name."""
    allowed = [str(each) for each in allowed]
    near = {each.lower(): each for each in allowed}
    guess = get_close_matches(str(name).lower(), near, n=1, cutoff=0.5)
    meant = meant or (near[guess[0]] if guess else None)
    hint = f" — did you mean {meant!r}?" if meant else ""
    if len(allowed) > MOST_LISTED:
        nearest = [near[each] for each in get_close_matches(str(name).lower(), near, NEAREST, cutoff=0)]
        allowed = [*nearest, f"and {len(allowed) - len(nearest):,} more"]
    return UserError(f"unknown {kind} {str(name)!r}{hint} (allowed: {', '.join(allowed)})")


def check_int(what: str, value: object, low: int, high: int | None = None) -> int:
    """The value as an int, if it is a whole number from `low` to `high`; UserError if it is anything else."""
    try:
        number = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
    except TypeError:
        number = low - 1
    if number < low or (high is not None and number > high):
        reach = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"{what} must be a whole number {reach}, not {value!r}")
    return number


def check_float(rule: str, value: object, fits: Callable[[float], bool]) -> float:
    """The value as a float, if it is a number that fits; UserError with the rule if it is anything else."""
    try:
        number = math.nan if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
    if not fits(number):
        raise UserError(f"{rule}, not {value!r}")
    return number
