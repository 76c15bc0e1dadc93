"""What every command line shares: a parser that answers a mistake with one sentence, types of values, exit codes."""

import argparse
import contextlib
import io
import math
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from diffusion import files
from diffusion.errors import Failure, UserError, is_out_of_memory, unknown
from diffusion.laboratory.stopping import Stopped

# Spellings of the release before, still understood where the new one is known. They are in no --help.
RENAMED = {"--interval": "--guidance-interval", "--samples": "--count", "--method": "--sampler"}
RENAMED |= {"--root": "--data-root", "--total-epochs": "--epochs", "--weight": "--guidance-scale"}  # of other programs


def program() -> str:
    """The words that started this: `cold-dif-model`, `python -m diffusion`, `python src` or `python src/part_1.py`."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"python -m {started.parent.name}"
    is_python = started.is_dir() or started.suffix == ".py"
    return f"python {shlex.quote(str(started))}" if is_python else started.name


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose --help shows defaults and whose errors are one sentence and exit code 2."""

    def __init__(self, description: str, examples: str = "", mode: str = ""):
        """`description` is a docstring; `mode` is what follows the program's name, "" for a script."""
        prog = f"{program()} {mode}".rstrip()
        super().__init__(prog, None, description, examples, formatter_class=Help, allow_abbrev=False)
        self._settings: dict[str, str] = {}  # by their names alone, what to write instead: lr -> --train.lr=…
        self._bare: list[str] = []  # settings that may be given by their names alone

    def parse_dotted(
        self, settings: Iterable[str], args: list[str] | None, bare: str = ""
    ) -> tuple[argparse.Namespace, list[str]]:
        """The options, and apart from them the overrides of `settings`: words such as --train.lr=1e-3.

        Of the section `bare`, settings may also come as two words, --latent 20.
        """
        args = self._dotted(settings, sys.argv[1:] if args is None else args, bare)
        dotted = [word for word in args if word.startswith("--") and "." in word.split("=")[0]]
        self._settings = {setting.split(".")[1]: f"--{setting}=…" for setting in settings}
        return self.parse_args([word for word in args if word not in dotted]), dotted

    def parse_args(self, args: list[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        # First, or `--sede 3 …` would be answered with what argparse makes of the 3.
        words = [self._spelled(word) for word in (sys.argv[1:] if args is None else args)]
        return super().parse_args(words, namespace)

    def _dotted(self, settings: Iterable[str], args: list[str], bare: str) -> list[str]:
        """The words, with --name value of the bare section as --section.name=value."""
        names = {each.split(".")[1] for each in settings if bare and each.startswith(f"{bare}.")}
        words, left = [], iter(args)
        for word in left:
            name, equals, value = word.partition("=")
            name = name.removeprefix("--").replace("-", "_")
            if name in names and word.startswith("--") and word.split("=")[0] not in self._option_string_actions:
                value = value if equals else next(left, "--")
                if value.startswith("--"):
                    self.error(f"{word}: expected a value")
                word = f"--{bare}.{name}={f'[{value}]' if ',' in value and '[' not in value else value}"
            words.append(word)
        self._bare = [f"--{name}" for name in names]
        return words

    def _spelled(self, word: str) -> str:
        """The word with an option's present name; ends the program if there is no such option."""
        options, (name, equals, value) = self._option_string_actions, word.partition("=")
        if name in options or not name.startswith("--") or name == "--":
            return word
        if RENAMED.get(name) in options:
            return RENAMED[name] + equals + value
        meant = self._settings.get(name.removeprefix("--").replace("-", "_"))
        self.error(
            str(unknown("option", name, [each for each in [*options, *self._bare] if each.startswith("--")], meant))
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')}\n")


class Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions as written; defaults shown, unless there is none or the help says it in words."""

    def _get_help_string(self, action: argparse.Action) -> str:
        silent = action.default in (None, argparse.SUPPRESS) or isinstance(action.default, bool)
        silent = silent or "default" in action.help or not action.option_strings
        return action.help if silent else f"{action.help} (default: {action.default})"


# --- Types of values ---


def one_of(kind: str, names: Iterable[str]) -> Callable[[str], str]:
    """An argparse type: one of `names`; a misspelt one is answered with the nearest."""
    names = list(names)

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(str(unknown(kind, text, names)))
        return text

    return parse


def number(kind: type, low: float, high: float = math.inf) -> Callable[[str], float]:
    """An argparse type: a finite int or float from `low` to `high`."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError, OverflowError):
            if low <= (value := kind(text)) <= high and math.isfinite(value):
                return value
        what = "an integer" if kind is int else "a number"
        reach = f"of at least {low}" if math.isinf(high) else f"from {low} to {high}"
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} {reach}")

    return parse


def path(text: str) -> Path:
    """An argparse type: a path, in which ~ is the home folder, whatever the shell made of it."""
    return files.expand(text)


def directory(text: str) -> Path:
    """An argparse type: a folder that is there, or can be made."""
    if not (nearest := _nearest(path(text))).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} cannot be a folder: {str(nearest)!r} is a file")
    return path(text)


def output_directory(text: str) -> Path:
    """An argparse type: a folder that can be written, or made."""
    folder = directory(text)
    if not _takes_files(nearest := _nearest(folder)):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {str(nearest)!r} takes no files")
    return folder


def output_directories(*names: str) -> Callable[[str], Path]:
    """An argparse type: a folder that can be written, or made, and in it folders of these names."""

    def parse(text: str) -> Path:
        folder = output_directory(text)
        for name in names:
            output_directory(str(folder / name))
        return folder

    return parse


def output_file(*suffixes: str) -> Callable[[str], Path]:
    """An argparse type: a file that can be written, whose name ends in one of the suffixes, if any are given."""

    def parse(text: str) -> Path:
        file = path(text)
        if suffixes and file.suffix not in suffixes:
            raise argparse.ArgumentTypeError(f"{text!r}: the name must end in {' or '.join(suffixes)}")
        if not can_write(file):
            raise argparse.ArgumentTypeError(f"{text!r}: no file can be written there")
        return file

    return parse


def can_write(file: Path) -> bool:
    """Whether a file can be written, and its folder be made."""
    taken = os.path.exists(file) and not os.path.isfile(file)  # by a folder or a device
    return not taken and _takes_files(_nearest(file.absolute().parent), file.name)


def _nearest(path: Path) -> Path:
    """The path, or the first folder above it that is there."""
    return next(each for each in (path, *path.absolute().parents) if os.path.exists(each))


def _takes_files(folder: Path, name: str = "") -> bool:
    """Whether a file of that name can be made there. It is tried: permissions tell nothing to root, or of a disk."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}."):
        return True
    return False


# --- From the first word to the exit code ---


def run_command(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> NoReturn:
    """Run a command and leave with its exit code: 0 done, 2 a mistake in what was asked, 1 anything that failed.

    128 + n after signal n, with the command that continues.
    """
    _open_streams()
    try:
        try:
            _check_rank()
            code = main(argv) or 0
        except Stopped as stopped:
            code = 128 + stopped.number
            _say_how_to_continue(signal.Signals(stopped.number).name)
        sys.stdout.flush()  # now, while a full disk or a closed pipe can still be answered
    except KeyboardInterrupt:
        code = 130
    except (UserError, Failure, OSError) as error:  # a full disk, a folder that cannot be written: the system's words
        code = 2 if isinstance(error, UserError) else 1
        if not isinstance(error, BrokenPipeError):  # the reader (head, less) has seen enough
            print(f"error: {error}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            sys.stdout = None  # or Python would try again on its way out, and complain
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        code = 1
        print("error: there is not enough memory: ask for less at a time (--batch-size, --count)", file=sys.stderr)
    sys.exit(code)


def _check_rank() -> None:
    """UserError if LOCAL_RANK is no number: torchmetrics reads it as soon as it is imported."""
    try:
        int(rank := os.environ.get("LOCAL_RANK", "0"))
    except ValueError:
        raise UserError(f"the launcher's settings do not fit: LOCAL_RANK is a number from 0, not {rank!r}") from None


def _open_streams() -> None:
    """Let streams that are closed lead nowhere, and letters that an encoding lacks become question marks."""
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
        stream = getattr(sys, name)
        if stream is None:  # the number is free, and would be that of the next file that is opened
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), "w" if flags else "r", errors="replace"))
        elif flags and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _say_how_to_continue(stopped_by: str) -> None:
    words, launcher = sys.argv[1:], "python"
    words += [] if "--resume" in words else ["--resume"]
    if "TORCHELASTIC_RUN_ID" in os.environ:
        launcher = f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']}"
    if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
        command = f"{program().replace('python', launcher, 1)} {shlex.join(words)}"
        print(f"\nstopped by {stopped_by}; the state is saved. Continue with\n  {command}")
