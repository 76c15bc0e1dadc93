"""What a start may import: help and mistakes no torch, a sample nothing that only training and scores need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
MODES = sorted(path.stem for path in (SRC / "diffusion/cli").glob("[!_]*.py"))
SCRIPTS = ("part_1", "part_2", "training_grounds")
SLOW = {"accelerate", "datasets", "fastapi", "matplotlib", "optuna", "ray", "scipy", "sklearn", "sqlalchemy"}
SLOW |= {"torch_fidelity", "torchmetrics", "torchvision", "triton", "uvicorn", "webdataset", "websockets"}
HEAVY = {*SLOW, "torch", "numpy", "PIL", "tqdm"}  # for a command line


def imported(code: str, *names: str) -> set[str]:
    """Which of the modules a fresh Python knows after the code."""
    code = f"import sys\n{code}\nimport json\nprint(json.dumps([n for n in {sorted(names)} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=SRC, capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_what_is_slow_would_be_seen():
    assert imported("from diffusion.metrics import scores", *SLOW) >= {"torchmetrics", "scipy"}


def test_help_of_every_mode_and_script_is_written_without_torch():
    code = """
from importlib import import_module
for name in {names}:
    try:
        import_module(name).read(["--help"])
    except SystemExit as left:
        assert left.code == 0
"""
    names = [*(f"diffusion.cli.{name}" for name in MODES), *SCRIPTS]
    assert imported(code.format(names=names), *HEAVY) == set()


MISTAKES = [
    ("generate", "--weights", "unet", "--count", "0"),
    ("generate", "--weights", "unet", "--originals", "x.npy"),
    ("train", "--preset", "unet", "--steps", "1", "--train.rate=1"),
    ("train", "--config", "configs/no_such_file.yaml"),
    ("sweep", "--presets", "light", "--trials", "3"),
    ("serve", "--host", "0.0.0.0"),
    ("stream", "--host", "0.0.0.0"),
    ("no-such-mode",),
]


def test_mistakes_are_answered_without_torch():
    code = f"""
from diffusion.__main__ import main
from diffusion.errors import UserError
for words in {MISTAKES}:
    try:
        main(list(words))
    except (SystemExit, UserError) as left:
        assert getattr(left, "code", 2) == 2
    else:
        raise AssertionError(words)
"""
    assert imported(code, *HEAVY) == set()


def test_a_sample_takes_torch_and_little_else(tmp_path):
    words = ["generate", "--weights", "unet", "--count", "1", "--steps", "1", "--out", str(tmp_path / "x.png")]
    code = f"from diffusion.__main__ import main\nmain({words})"
    assert imported(code, *SLOW, "torch", "torch._dynamo", "diffusion.training") == {"torch"}
    assert (tmp_path / "x.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("from diffusion import Config", set()),
        ("import diffusion.commands.serve", {"torch", "fastapi", "uvicorn"}),
        ("import diffusion.laboratory.run", {"torch", "accelerate"}),  # trains without scores
    ],
)
def test_a_door_opens_no_more_than_it_has_to(code, allowed):
    assert imported(code, *SLOW, "torch") == allowed
