"""The notebooks run from top to bottom, hold no output in git, and use the library, or do without all of it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STANDALONE = ROOT / "notebooks" / "0-standalone.ipynb"
SECONDS = 1800  # two minutes of work took ten on a machine that was busy

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def source(path: Path) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in cells(path))


def run(*words) -> None:
    """Run Python in the repository's root, on one thread, with the package that is installed."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
@each
def test_it_runs(path):
    limits = [f"--nbmake-timeout={SECONDS}", f"--timeout={SECONDS}"]
    run("-m", "pytest", "--nbmake", *limits, "-o", "addopts=", "-p", "no:cacheprovider", path)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("choice", ['"ddpm_mnist_{epoch}_ddpm_unet", 5', '"unet", 0'])  # and a cold one as it is stored
def test_any_weights_can_be_played_with(choice):
    stored = '"custom_mnist_{epoch}_row_cold_unet", 8'
    code = source(ROOT / "notebooks" / "load_and_play.ipynb")
    assert stored in code
    run("-c", code.replace(stored, choice).replace("0, 256  #", "0, 32  #"))


@each
def test_it_is_stored_without_output(path):
    assert cells(path) and not any(cell["outputs"] or cell["execution_count"] for cell in cells(path))


@each
def test_it_defines_nothing_or_imports_nothing_of_ours(path):
    nodes = list(ast.walk(ast.parse(source(path))))
    named = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    named += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    ours = {name.split(".")[0] for name in named} & {each.stem for each in (ROOT / "src").iterdir()}
    assert "sys.path" not in source(path) and bool(ours) == (path != STANDALONE)
    assert path == STANDALONE or not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in nodes)


def test_the_rendered_copy_is_of_the_notebook_that_is_stored():
    rendered = (ROOT / "docs" / "load_and_play.md").read_text(encoding="utf-8")
    for cell in cells(ROOT / "notebooks" / "load_and_play.ipynb"):
        assert "".join(cell["source"]) in rendered
    for picture in (ROOT / "docs").glob("load_and_play_*.png"):
        assert f"({picture.name})" in rendered
