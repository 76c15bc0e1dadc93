"""The package: its front door, its pins, its types, and an installation far from the repository."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import diffusion
from diffusion.files import shipped_weights

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*words, cwd: Path = ROOT, **env: str) -> str:
    """What a command that succeeds has said."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"} | env
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


# --- from diffusion import … ---


def test_what_editors_read_is_what_is_imported():
    """The names under TYPE_CHECKING, those imported when they are asked for, and __all__."""
    nodes = ast.walk(ast.parse(Path(diffusion.__file__).read_text()))
    ours = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module.startswith("diffusion.")]
    read = {alias.name: node.module for node in ours for alias in node.names}
    assert read == {name: f"diffusion.{home}" for name, home in diffusion.HOMES.items()}
    assert sorted(read) == diffusion.__all__ and set(read) | {"__version__"} <= set(dir(diffusion))
    for name, home in read.items():
        assert getattr(diffusion, name) is getattr(sys.modules[home], name)
    with pytest.raises(AttributeError, match="has no attribute 'lode'; it has .*load"):
        _ = diffusion.lode


def test_importing_it_does_not_wait_for_torch():
    code = "import sys, diffusion; dir(diffusion); sys.exit('torch' in sys.modules)"
    run(sys.executable, "-c", code, PYTHONPATH=str(ROOT / "src"))


def test_its_version_is_that_of_the_project():
    assert diffusion.__version__ == PROJECT["version"] == importlib.metadata.version(PROJECT["name"])


def test_the_citation_and_the_changes_are_of_this_version():
    citation, changes = ((ROOT / name).read_text() for name in ("CITATION.cff", "CHANGELOG.md"))
    version, date = (re.search(rf"^{key}: (.*)$", citation, re.MULTILINE)[1] for key in ("version", "date-released"))
    assert version == PROJECT["version"] and f"\n## {version} ({date})\n" in changes


def test_the_modules_that_the_changes_name_are_there():
    rows = re.findall(r"^\| .* \| (.*) \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    modules = [name for row in rows for name in re.findall(r"`(diffusion\.[\w.]+)`", row)]
    assert len(modules) >= 20
    for name in modules:
        path = ROOT / "src" / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists(), name


def test_the_shipped_weights_are_those_of_the_checkout():
    assert shipped_weights() == ROOT / "weights"


# --- Pins ---


def test_the_product_pins_what_it_imports_and_nothing_else():
    lines = [line for name in ("", "-cluster") for line in (ROOT / f"requirements{name}.txt").read_text().splitlines()]
    pins = {re.match(r"[\w-]+(?=(\[\w+\])?==)", line)[0] for line in lines if not line.startswith(("#", "-r"))}
    trees = [ast.parse(path.read_text()) for path in (ROOT / "src").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    providers = importlib.metadata.packages_distributions()  # without those of -cluster where that is not installed
    ours = {path.stem for path in (ROOT / "src").iterdir()}
    foreign = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - ours
    foreign |= {"python_multipart"}  # FastAPI imports it when a form comes
    assert {providers.get(name, [name])[0].replace("_", "-") for name in foreign} == pins


def test_the_tools_are_added_to_the_product():
    dev = (ROOT / "requirements-dev.txt").read_text().splitlines()
    assert next(line for line in dev if not line.startswith("#")) == "-r requirements.txt"
    assert not set(dev) & set((ROOT / "requirements.txt").read_text().splitlines())


# --- Types ---


def test_a_wrong_keyword_is_refused_before_it_runs(tmp_path):
    code = 'from diffusion import load\n\nload("unet").sample(4, steps=3)\nload("unet").sample(4, stepz=3)\n'
    (tmp_path / "user.py").write_text(code)
    quick = "follow_imports = silent\n[mypy-torch.*,numpy.*]\nfollow_imports = skip\n"  # 2 s instead of 10
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nmypy_path = {ROOT / 'src'}\n{quick}")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", os.devnull, "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line and "user.py" in line]
    assert done.returncode == 1 and len(errors) == 1 and "user.py:4" in errors[0], done.stdout + done.stderr
    assert 'Unexpected keyword argument "stepz" for "sample" of "Model"' in errors[0]


# --- pip install . ---


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The bin/ of an environment into which a copy of this checkout was installed; the pins are borrowed from ours."""
    folder = tmp_path_factory.mktemp("installed")
    copy, venv = folder / "copy", folder / "venv"
    for name in ("src", "weights", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        path = ROOT / name
        copy.mkdir(exist_ok=True)
        shutil.copytree(path, copy / name, symlinks=True) if path.is_dir() else shutil.copy(path, copy)
    run(sys.executable, "-m", "venv", "--without-pip", venv)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "pins.pth").write_text(str(Path(torch.__file__).parents[1]))
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install", "--no-deps"]
    run(*pip, "--no-build-isolation", copy)
    shutil.rmtree(copy)
    return venv / "bin"


@pytest.mark.slow
def test_it_draws_from_its_weights_far_from_the_repository(installed, tmp_path):
    run(installed / "cold-dif-model", "generate", "--weights", "unet", "--count", "4", "--out", "x.png", cwd=tmp_path)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    code = "import torch; from diffusion import load; torch.save(load('unet').sample(2), 'x.pt')"
    run(installed / "python", "-c", code, cwd=tmp_path)
    torch.testing.assert_close(torch.load(tmp_path / "x.pt"), diffusion.load("unet").sample(2))


@pytest.mark.slow
def test_its_package_holds_all_that_is_shipped_and_what_editors_ask_for(installed, tmp_path):
    code = "import diffusion, diffusion.files; print(diffusion.__file__, diffusion.files.shipped_weights(), sep='\\n')"
    package, weights = map(Path, run(installed / "python", "-c", code, cwd=tmp_path).split())
    assert weights == package.parent / "weights" and installed.parent in weights.parents
    assert {path.name for path in weights.iterdir()} == {path.name for path in (ROOT / "weights").glob("*.pth")}
    assert (package.parent / "py.typed").exists() and not (package.parents[1] / "part_1.py").exists()
    assert "usage: python -m diffusion MODE" in run(installed / "python", "-m", "diffusion", "--help", cwd=tmp_path)
