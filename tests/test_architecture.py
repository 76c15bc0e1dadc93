"""The house keeps its plan: imports point down only, some libraries live in one room, src/diffusion does not print."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"

# Each module of src/diffusion imports from the floors below its own, never from its own or from above.
FLOORS = [
    "errors precision",
    "checkpoint fetch",
    "schedule networks noise config data classifier codec mixture",
    "process autoencoder captions extractor recipe",
    "averaging",
    "denoiser coursework",
    "sampler guidance training metrics",
    "editing likelihood",
    "experiment figures",
    "generation",
    "editor",
    "model",
]
OUTSIDE = {each.stem for each in SRC.iterdir()} - {"diffusion"} | {""}  # "" is what a relative import starts with
FLOOR = {module: height for height, modules in enumerate(FLOORS) for module in modules.split()}

# The only files under src/ that may import these.
ROOMS = {
    "matplotlib": r"diffusion/figures\.py",
    "torchvision.datasets": r"diffusion/data\.py",
    "fastapi": r"serving/.*",
    "argparse": r"commands/.*|[^/]+\.py",
}


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a file imports; those of a relative import start with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def complaints(path: str, source: str) -> list[str]:
    """What breaks the plan in one file; `path` is relative to src/."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    used = [*imports(tree), *(ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute))]
    found = [
        f"{path} uses {library}, whose room is {room}"
        for library, room in ROOMS.items()
        if not re.fullmatch(room, path) and any(f"{name}.".startswith(f"{library}.") for name in used)
    ]
    if not path.startswith("diffusion/"):
        return found
    module = Path(path).stem
    if module == "__init__":  # opens doors by name, only when they are asked for
        return found
    if module not in FLOOR:
        return [*found, f"{path} is on no floor: add it to FLOORS in {Path(__file__).name}"]
    for name in imports(tree):
        top, below, *_ = [*name.split("."), ""]
        if top in OUTSIDE or (top == "diffusion" and FLOOR.get(below, len(FLOORS)) >= FLOOR[module]):
            found.append(f"{path} imports {name}, which is not on a floor below its own")
    if any(isinstance(node, ast.Call) and ast.unparse(node.func) == "print" for node in nodes):
        found.append(f"{path} prints: yield a record and let the caller say it")
    return found


@pytest.mark.parametrize("path", sorted(str(each.relative_to(SRC)) for each in SRC.rglob("*.py")))
def test_every_file_keeps_to_the_plan(path):
    assert complaints(path, (SRC / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("diffusion/process.py", "from diffusion.sampler import sample"),  # up
        ("diffusion/process.py", "from diffusion import denoiser"),
        ("diffusion/schedule.py", "import diffusion.networks"),  # sideways
        ("diffusion/schedule.py", "def late():\n    from diffusion.process import Process"),
        ("diffusion/schedule.py", "from .errors import UserError"),  # which floor, nobody sees
        ("diffusion/experiment.py", "from commands.options import run"),  # out of the house
        ("diffusion/nonsense.py", "x = 1"),
        ("diffusion/data.py", "print(1)"),
        ("diffusion/metrics.py", "from matplotlib import pyplot"),
        ("diffusion/metrics.py", "from torchvision import datasets"),
        ("diffusion/metrics.py", "import torchvision\ntorchvision.datasets.MNIST('data')"),
        ("diffusion/config.py", "import argparse"),
        ("commands/generate.py", "import matplotlib.pyplot as plt"),
        ("streaming/server.py", "import fastapi"),
    ],
)
def test_a_file_that_breaks_the_plan_is_found(path, source):
    assert len(complaints(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("diffusion/process.py", "import torch\nfrom diffusion.noise import Noise"),
        ("diffusion/figures.py", "import matplotlib.pyplot as plt\nfrom diffusion.sampler import sample"),
        ("diffusion/data.py", "import torchvision.datasets\nself.print(1)"),
        ("part_1.py", "import argparse\nfrom diffusion.experiment import build\nprint(build)"),
    ],
)
def test_a_file_that_keeps_to_the_plan_is_left_alone(path, source):
    assert complaints(path, source) == []


def test_the_hooks_pin_the_ruff_of_requirements_txt():
    files = ("requirements.txt", ".pre-commit-config.yaml")
    pins = [set(re.findall(r"ruff==[\d.]+", (ROOT / file).read_text())) for file in files]
    assert pins[0] == pins[1] != set()
