"""A command line answers a mistake with one sentence, the nearest name and exit code 2, and starts quickly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import diffusion.__main__ as dispatcher
from diffusion.cli import generate
from diffusion.errors import UserError
from diffusion.laboratory import options

SRC = Path(__file__).parents[1] / "src"


def run_src(*words: str, python: tuple[str, ...] = (), stdout=subprocess.PIPE) -> subprocess.CompletedProcess:
    """`python src …` as a person runs it: output to a pipe or a file is buffered."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, *python, SRC, *words]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, env=buffered)


@pytest.fixture
def front(tmp_path, monkeypatch):
    """The dispatcher, with two modes of ours."""
    (tmp_path / "draw_digits.py").write_text('"""Draw digits.\n\nMore.\n"""\n1 / 0\ndef read(argv): ...\n')
    (tmp_path / "sweep.py").write_text('"""Try many."""\ndef read(argv): ...\n')
    (tmp_path / "__init__.py").write_text('"""All modes."""\n')
    monkeypatch.setattr(dispatcher, "HERE", tmp_path)
    return dispatcher


@pytest.fixture
def parser():
    parser = options.Parser("100 tests")
    parser.prog = "prog"
    parser.add_argument("epochs", type=options.number(int, 0), nargs="?", help="how many")
    parser.add_argument("--preset", type=options.one_of("preset", ["default", "light"]), default="light", help="which")
    parser.add_argument("--eta", type=options.number(float, 0, 1), default=1.0, help="0 DDIM, 1 DDPM")
    return parser


def refusal(capsys, parse, argv: list[str]) -> str:
    """The one line on stderr with which a command line is refused."""
    with pytest.raises(SystemExit) as stop:
        parse(argv)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.count("\n") == 1 and err.endswith("\n")
    return err


# --- python src ---


def test_the_modes_are_listed_by_file_without_importing_them(front, capsys):
    assert front.main([]) == 2 and front.main(["--help"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert lines == 2 * [["draw-digits", "Draw digits."], ["sweep", "Try many."]]


def test_an_unknown_mode_is_answered_with_the_nearest(front):
    with pytest.raises(UserError, match="unknown mode 'draw_digit' — did you mean 'draw-digits'?"):
        front.main(["draw_digit"])


def test_an_unknown_mode_leaves_one_line_and_exit_code_2():
    answer = run_src("no-such-mode")
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert answer.stderr.startswith("error: unknown mode 'no-such-mode'")


def test_listing_the_modes_does_not_wait_for_torch():
    answer = run_src("--help", python=("-X", "importtime"))
    assert answer.returncode == 0 and "diffusion.errors" in answer.stderr and "torch" not in answer.stderr


@pytest.mark.parametrize(
    ("started", "program"),
    [
        (SRC, f"python {SRC}"),  # python src
        (SRC / "diffusion" / "__main__.py", "python -m diffusion"),
        ("/usr/local/bin/cold-dif-model", "cold-dif-model"),
    ],
)
def test_the_usage_line_says_the_command_that_was_used(front, capsys, monkeypatch, started, program):
    monkeypatch.setattr(sys, "argv", [str(started), "--help"])
    assert front.main() == 0
    assert capsys.readouterr().out.startswith(f"usage: {program} MODE [options]")
    with pytest.raises(SystemExit):
        generate.read(["--help"])
    assert capsys.readouterr().out.startswith(f"usage: {program} generate [-h]")


def test_a_script_is_called_by_its_path(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["src/part_1.py", "--help"])
    assert options.Parser("Part 1").prog == "python src/part_1.py"


def test_a_reader_who_leaves_early_is_no_error_to_talk_about():
    read, write = os.pipe()
    os.close(read)  # what `| head` does, sooner
    with open(write, "w") as gone:
        answer = run_src("--help", stdout=gone)
    assert (answer.returncode, answer.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_output_that_cannot_be_written_leaves_one_line_and_exit_code_1():
    with open("/dev/full", "w") as full:
        answer = run_src("--help", stdout=full)
    assert (answer.returncode, answer.stderr) == (1, "error: [Errno 28] No space left on device\n")


# --- options ---


@pytest.mark.parametrize("text", ["-0.1", "1.1", "nan", "inf", "-inf", "", "half", "1,0"])
def test_a_number_outside_its_range_is_refused_with_the_range(parser, capsys, text):
    error = refusal(capsys, parser.parse_args, [f"--eta={text}"])
    assert error.startswith("prog: --eta:") and "a number from 0 to 1" in error


@pytest.mark.parametrize("text", ["-1", "1.5", "1e3", "nan", "inf", "many"])
def test_an_integer_is_whole_and_at_least_its_least(parser, capsys, text):
    assert "is not an integer of at least 0" in refusal(capsys, parser.parse_args, ["--", text])


@pytest.mark.parametrize("text", ["nan", "inf"])
def test_a_number_without_an_upper_end_is_finite(text):
    with pytest.raises(options.argparse.ArgumentTypeError, match="a number of at least 0"):
        options.number(float, 0)(text)


def test_both_ends_of_a_range_are_allowed(parser):
    for text in ("0", "1", "1e-3"):
        assert parser.parse_args([f"--eta={text}"]).eta == float(text)
    assert parser.parse_args(["0"]).epochs == 0


def test_a_misspelt_value_is_answered_with_the_nearest_and_the_list(parser, capsys):
    error = refusal(capsys, parser.parse_args, ["--preset", "Defualt"])
    assert "unknown preset 'Defualt' — did you mean 'default'? (allowed: default, light)" in error


@pytest.mark.parametrize("word", ["--prest", "--prest=light", "--pre"])
def test_a_misspelt_or_shortened_option_is_answered_with_the_nearest(parser, capsys, word):
    error = refusal(capsys, parser.parse_args, [word])
    assert f"unknown option '{word.split('=')[0]}' — did you mean '--preset'?" in error


def test_an_empty_word_too_many_is_refused_in_a_sentence(parser, capsys):
    assert "prog: " in refusal(capsys, parser.parse_args, ["3", ""])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x.jpg", "'x.jpg': the name must end in .png or .npy"),
        (f"{__file__}/x.png", "no file can be written there"),
        ("/dev/null/below/x.png", "no file can be written there"),
        (str(SRC), "the name must end in"),
    ],
)
def test_an_output_file_that_could_not_be_written_is_refused(text, says):
    with pytest.raises(options.argparse.ArgumentTypeError, match=says):
        options.output_file(".png", ".npy")(text)


def test_an_output_file_may_be_new_in_a_new_folder_but_is_no_folder(tmp_path):
    assert options.output_file(".png")(f"{tmp_path}/new/x.png") == tmp_path / "new/x.png"
    assert not (tmp_path / "new").exists()
    with pytest.raises(options.argparse.ArgumentTypeError, match="no file can be written there"):
        options.output_file()(str(tmp_path))


def test_help_shows_the_defaults(parser, capsys):
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--help"])
    assert stop.value.code == 0 and "which (default: light)" in capsys.readouterr().out


# --- run ---


def raiser(error: BaseException):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "said"),
    [
        (lambda argv: None, 0, ""),
        (lambda argv: 3, 3, ""),
        (raiser(UserError("no such thing")), 2, "error: no such thing\n"),
        (raiser(OSError(28, "No space left on device")), 1, "error: [Errno 28] No space left on device\n"),
        (raiser(BrokenPipeError(32, "Broken pipe")), 1, ""),
    ],
)
def test_a_command_leaves_with_its_code_and_at_most_a_sentence(capsys, main, code, said):
    with pytest.raises(SystemExit) as stop:
        options.run_command(main, [])
    assert (stop.value.code, capsys.readouterr().err) == (code, said)


def test_a_bug_is_not_dressed_up_as_the_persons_mistake():
    with pytest.raises(ZeroDivisionError):
        options.run_command(raiser(ZeroDivisionError()), [])


def test_malloc_keeps_what_tensors_free():
    """Freed blocks come back without a page fault each; in a process of its own, for it cannot be undone."""
    code = """
import resource
import torch
from diffusion.laboratory.device import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        [torch.ones(2**20) for _ in range(16)]  # 4 MiB each, 16 of them: 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
keep_memory()
faults()
print(usual, faults())
"""
    low = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # where glibc begins; how far it raises this depends on luck
    env = os.environ | low | {"PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    usual, kept = map(int, done.stdout.split())
    assert kept < 1000 and (usual > 10 * kept or sys.platform != "linux")


@pytest.mark.parametrize("name", ["--labels", "--originals"])
def test_generate_does_not_write_two_things_to_one_file(tmp_path, name):
    out, start = tmp_path / "x.npy", {"--labels": "prior", "--originals": "test"}[name]
    words = ["--weights", "unet", "--from", start, "--out", str(out), name, f"{tmp_path}/a/../x.npy"]
    with pytest.raises(UserError, match="two of them are the same file"):
        generate.read(words)
    assert not out.exists()
