"""Rooms import from the floors below their own, some libraries live in one room, the library does not print.

`python tests/test_architecture.py` draws who imports whom.
"""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"

FLOORS = [  # a room imports from the floors below its own, and from itself; its neighbours it does not know
    {"errors", "precision"},
    {"files"},
    {"method", "networks", "data", "figures"},
    {"metrics", "experiment"},
    {"training", "api"},
    {"laboratory", "serving", "streaming"},
    {"cli"},
    {"commands", "__main__"},
    {"scripts"},  # part_1.py, part_2.py, training_grounds.py, __main__.py
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
LIBRARIES = {  # the only files under src/ that may use these
    "matplotlib": r"diffusion/figures\.py",
    "torchvision.datasets": r"diffusion/data/.*",
    "fastapi": r"diffusion/serving/.*",
    "uvicorn": r"diffusion/serving/.*",
    "ray": r"diffusion/serving/cluster\.py",
    "prometheus_client": r"diffusion/serving/.*",
    "websockets": r"diffusion/streaming/.*",
    "argparse": r"diffusion/laboratory/.*|diffusion/cli/.*|diffusion/commands/.*|[^/]+\.py",
}
TALKATIVE = {"laboratory", "commands", "scripts"}  # the others yield records, and the caller says it


def room_of(name: str) -> str:
    """The room of a dotted module name or of a path below src/."""
    parts = name.removesuffix(".py").replace("/", ".").split(".")
    return "scripts" if parts[0] != "diffusion" else parts[1]


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a file imports; those of a relative import start with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def complaints(path: str, source: str) -> list[str]:
    """What breaks the rule in one file; `path` is relative to src/."""
    nodes, room = list(ast.walk(tree := ast.parse(source))), room_of(path)
    used = [*imports(tree), *(ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute))]
    found = [
        f"{path} uses {library}, which lives in {home}"
        for library, home in LIBRARIES.items()
        if not re.fullmatch(home, path) and any(f"{name}.".startswith(f"{library}.") for name in used)
    ]
    for name in imports(tree):
        above = FLOOR.get(room_of(name), len(FLOORS)) >= FLOOR[room]
        if name.startswith(".") or (name.startswith("diffusion.") and above and room_of(name) != room):
            found.append(f"{path} imports {name}, which is not on a floor below {room}")
        if room == "commands" and name.startswith("diffusion.commands"):
            found.append(f"{path} imports {name}: no mode imports another")
    if room not in TALKATIVE and any(isinstance(n, ast.Call) and ast.unparse(n.func) == "print" for n in nodes):
        found.append(f"{path} prints: yield a record and let the caller say it")
    return found


def sources() -> dict[str, str]:
    """path below src/ -> source, of every file but the face of the package, which opens doors by name."""
    paths = {str(each.relative_to(SRC)): each for each in sorted(SRC.rglob("*.py"))}
    faces = {"diffusion/__init__.py", "diffusion/__main__.py"}
    return {path: each.read_text(encoding="utf-8") for path, each in paths.items() if path not in faces}


def drawing() -> str:
    """The rooms from the top floor down, each with the rooms it imports from."""
    seen: dict[str, set[str]] = {}
    for path, source in sources().items():
        rooms = {room_of(name) for name in imports(ast.parse(source)) if name.startswith("diffusion.")}
        seen.setdefault(room_of(path), set()).update(rooms - {room_of(path)})
    order = lambda rooms: sorted(rooms, key=lambda room: (-FLOOR[room], room))
    return "\n".join(f"{room:<11}→ {'  '.join(order(seen[room]))}".rstrip(" →") for room in order(seen))


@pytest.mark.parametrize("path", sources())
def test_every_file_keeps_to_the_rule(path):
    assert complaints(path, sources()[path]) == []


def test_no_file_imports_itself_by_a_detour():
    graph = {}
    for path, source in sources().items():
        names = {name for each in imports(ast.parse(source)) for name in (each, each.rpartition(".")[0])}
        graph[path] = {file for file in sources() if file.removesuffix(".py").replace("/", ".") in names}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize(
    "room", sorted({room_of(path) for path in sources()} - {"errors", "precision", "files", "figures", "scripts"})
)
def test_every_room_says_what_lives_there(room):
    text = ast.get_docstring(ast.parse((SRC / "diffusion" / room / "__init__.py").read_text(encoding="utf-8")))
    assert text and "mports" in text


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("diffusion/method/process.py", "from diffusion.experiment.build import build"),  # up
        ("diffusion/method/schedule.py", "import diffusion.networks.unet"),  # sideways
        ("diffusion/method/schedule.py", "def late():\n    from diffusion.networks.cnn import CNN"),
        ("diffusion/method/schedule.py", "from .noise import Noise"),  # which room, nobody sees
        ("diffusion/experiment/build.py", "from diffusion.laboratory.options import number"),
        ("diffusion/serving/app.py", "from diffusion.laboratory.run import Run"),
        ("diffusion/commands/train.py", "from diffusion.commands.generate import main"),
        ("diffusion/data/datasets.py", "print(1)"),
        ("diffusion/metrics/scores.py", "from matplotlib import pyplot"),
        ("diffusion/metrics/scores.py", "import torchvision\ntorchvision.datasets.MNIST('data')"),
        ("diffusion/experiment/config.py", "import argparse"),
        ("diffusion/streaming/server.py", "import fastapi"),
    ],
)
def test_a_file_that_breaks_the_rule_is_found(path, source):
    assert len(complaints(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("diffusion/method/process.py", "import torch\nfrom diffusion.method.noise import Noise"),
        ("diffusion/figures.py", "import matplotlib.pyplot as plt\nfrom diffusion.files import save"),
        ("diffusion/data/datasets.py", "import torchvision.datasets\nself.print(1)"),
        ("part_1.py", "import argparse\nfrom diffusion.experiment.build import build\nprint(build)"),
    ],
)
def test_a_file_that_keeps_to_the_rule_is_left_alone(path, source):
    assert complaints(path, source) == []


def test_the_hooks_pin_the_ruff_of_the_requirements():
    files = (*ROOT.glob("requirements*.txt"), ROOT / ".pre-commit-config.yaml")
    pins = [pin for file in files for pin in set(re.findall(r"ruff==[\d.]+", file.read_text()))]
    assert len(pins) == 2 and len(set(pins)) == 1


def test_the_drawing_is_of_the_house_as_it_is():
    assert drawing() in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "python tests/test_architecture.py"


if __name__ == "__main__":
    print(drawing())
