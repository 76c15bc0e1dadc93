"""What every command line shares: a parser that answers a mistake with one sentence, and the types of its values."""

import argparse
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from diffusion.errors import Failure, UserError, unknown

# Spellings of the release before, still understood where the new one is known. They are in no --help.
RENAMED = {"--interval": "--guidance-interval", "--samples": "--count", "--method": "--sampler"}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose --help shows defaults and whose errors are one sentence and exit code 2."""

    _settings: dict[str, str] = {}  # that overrides can change, by their names without the section

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("formatter_class", Help)
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_dotted_args(
        self, settings: Iterable[str], args: list[str] | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """The options, and apart from them the overrides of `settings`: words such as --train.lr=1e-3."""
        args = sys.argv[1:] if args is None else args
        dotted = [word for word in args if word.startswith("--") and "." in word.split("=")[0]]
        self._settings = {setting.split(".")[1]: setting for setting in settings}
        return self.parse_args([word for word in args if word not in dotted]), dotted

    def parse_args(self, args=None, namespace=None):
        # First, or `--sede 3 …` would be answered with what argparse makes of the 3.
        options = [option for action in self._actions for option in action.option_strings]
        words = []
        for word in sys.argv[1:] if args is None else args:
            name, *value = word.split("=", 1)
            if name not in options and RENAMED.get(name) in options:
                word = "=".join([RENAMED[name], *value])
            elif name.startswith("--") and name != "--" and name not in options:
                setting = self._settings.get(name.removeprefix("--").replace("-", "_"))
                known = [option for option in options if option.startswith("--")]
                self.error(str(unknown("option", name, known, setting and f"--{setting}=…")))
            words.append(word)
        return super().parse_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')}\n")


class Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions as written; defaults shown, unless there is none or the help tells it in words."""

    def _get_help_string(self, action: argparse.Action) -> str:
        told = action.default in (None, argparse.SUPPRESS, False) or "default" in action.help
        return action.help if told or not action.option_strings else f"{action.help} (default: {action.default})"


def one_of(kind: str, names: Iterable[str]) -> Callable[[str], str]:
    """An argparse type: one of `names`; a misspelt one is answered with the nearest."""
    names = list(names)

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(str(unknown(kind, text, names)))
        return text

    return parse


def number(kind: type, low: float, high: float = float("inf")) -> Callable[[str], float]:
    """An argparse type: an int or float in [low, high]."""

    def parse(text: str):
        try:
            value = kind(text)
            fine = low <= value <= high and math.isfinite(value)  # NaN fails the first
        except (ValueError, OverflowError):
            fine = False
        if not fine:
            what = "an integer" if kind is int else "a number"
            reach = f"of at least {low}" if math.isinf(high) else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} {reach}")
        return value

    return parse


def directory(text: str) -> Path:
    """An argparse type: a folder that is there, or can be made."""
    path = Path(text)
    nearest = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} cannot be a folder: {str(nearest)!r} is a file")
    return path


def run_command(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> NoReturn:
    """Run a command and leave with its exit code: 0 done, 2 a mistake in what was asked, 1 anything that failed."""
    try:
        code = main(argv) or 0
        sys.stdout.flush()  # now, while a full disk or a closed pipe can still be answered
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        sys.stdout = None  # or Python would try the pipe again on its way out, and complain
        code = 1
    except (OSError, Failure) as error:  # a full disk, a folder that cannot be written: the system's own sentence
        print(f"error: {error}", file=sys.stderr)
        code = 1
        try:
            sys.stdout.flush()
        except OSError:
            sys.stdout = None
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
