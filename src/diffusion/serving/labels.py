"""Labels by number, by name, or in a sentence: 7, "7", "seven", "a sneaker, please"."""

import re

from diffusion.data.registry import DATASETS
from diffusion.errors import UserError, unknown
from diffusion.experiment.config import Config

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NONE = "none"  # a label that asks for none: unconditional


def class_names(config: Config) -> list[str]:
    """What its data set calls its classes."""
    return list(DATASETS[config.dataset].classes) if config.dataset in DATASETS else []


def label_names(config: Config) -> list[str]:
    """What each label of a model means; empty where there are none."""
    names = class_names(config)
    return names if len(names) == config.classes else [str(label) for label in range(config.classes)]


def _words(names: list[str]) -> dict[str, int]:
    """Every word for a label, as it is and, where that means no other, in small letters."""
    words = {str(label): label for label in range(len(names))}
    if names[:10] == [str(digit) for digit in range(10)]:
        words |= {word: label for label, word in enumerate(DIGITS)}
    own = {part.strip(): label for label, name in enumerate(names) for part in (name, *name.split("/"))}
    return words | {word.lower(): label for word, label in own.items()} | own


def find_label(value: int | str, names: list[str]) -> int:
    """The label that a number or a word means; UserError with the list if it is none."""
    words, text = _words(names), str(value).strip()
    if (label := words.get(text, words.get(text.lower()))) is None:
        raise unknown("label", value, words if isinstance(value, str) and not str(value).isdigit() else names)
    return label


def read_prompt(prompt: str, names: list[str]) -> int | None:
    """The one label that a sentence speaks of; None if it is empty. UserError if it speaks of none or of several."""
    if not prompt.strip() or not names:
        return None
    words = _words(names)
    longest_first = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    found = re.findall(rf"(?<![\w-])({longest_first})s?(?![\w-])", prompt, re.IGNORECASE | re.ASCII)
    found = [word for word in found if word.lower() != "a"] or found  # of a sentence, an "a" is the article
    labels = {words[word if word in words else word.lower()] for word in found}
    if len(labels) > 1:
        several = ", ".join(names[label] for label in sorted(labels))
        raise UserError(f"the prompt speaks of several labels ({several}): this model draws one an image")
    if not labels:
        raise unknown("prompt", prompt[:60], words)
    return labels.pop()
