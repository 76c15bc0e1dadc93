"""What can be known of the Dockerfile without building it (.ci/docker builds it)."""

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from diffusion.serving.settings import Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
IGNORED = (ROOT / ".dockerignore").read_text()


def instructions(text: str) -> list[tuple[str, str]]:
    """(FROM, …), (RUN, …), … with continued lines joined; comments end at their line, even between continued ones."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def patterns(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def hidden(path: str, ignored: str) -> bool:
    """Whether .dockerignore keeps a path, or a folder above it, out: `name` means one at the top, `**/name` any."""
    at_any_depth = [each.removeprefix("**/") for each in patterns(ignored) if each.startswith("**/")]
    at_the_top = [each for each in patterns(ignored) if not each.startswith("**/")]
    first, *_ = parts = Path(path).parts or (".",)
    return any(fnmatch(part, each) for part in parts for each in at_any_depth) or first in at_the_top


def complaints(dockerfile: str, ignored: str = IGNORED) -> list[str]:
    found, declared, user = [], {"PATH"}, "root"
    for word, rest in instructions(dockerfile):
        if word == "FROM":
            version = re.fullmatch(r"python:(\d+\.\d+)-slim", rest)
            conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
            (allowed,) = (each for each in conda if isinstance(each, str) and each.startswith("python "))
            if not version or version[1] not in SpecifierSet(allowed.removeprefix("python ")):
                found.append(f"FROM {rest} is not a slim Python that environment.yml allows")
        elif word == "USER":
            user = rest
        elif word in ("COPY", "ADD"):
            *sources, _ = [each for each in rest.split() if not each.startswith("--")]
            found += [f"{each} is not there" for each in sources if not (ROOT / each).exists()]
            found += [f"{each} is kept out by .dockerignore" for each in sources if hidden(each, ignored)]
            owner = re.search(r"--chown=(\w+)", rest)
            if user != "root" and (not owner or owner[1] != user):
                found.append(f"COPY {rest} gives root what {user} works with")
        found += [f"${name} is not declared" for name in re.findall(r"\$\{?(\w+)", rest) if name not in declared]
        if word in ("ARG", "ENV"):
            declared |= {each.partition("=")[0] for each in rest.split()}
    if user in ("root", "0"):
        found.append("the shell is root's")
    return found


def test_the_dockerfile_is_in_order():
    assert complaints(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("FROM python:3.13-slim", "FROM python:3.10-slim", "environment.yml"),
        ("FROM python:3.13-slim", "FROM python:3.13", "slim"),
        ("FROM python:", "FROM registry.example/python:", "slim"),
        ("USER lab\n", "", "root's"),
        ("CMD", "USER root\nCMD", "root's"),
        ("requirements.txt requirements-dev.txt ./", "requirement.txt ./", "is not there"),
        ("COPY --chown=lab:lab . .", "COPY . .", "gives root"),
        ("COPY --chown=lab:lab . .", "COPY --chown=lab:lab runs/ data .", "kept out"),
        ("ARG DEVICE=cpu\n", "", "$DEVICE is not declared"),
        ("ARG USER_ID=1000\n", "", "$USER_ID is not declared"),
    ],
)
def test_a_dockerfile_that_is_not_is_found(old, new, complaint):
    assert old in DOCKERFILE
    assert any(complaint in each for each in complaints(DOCKERFILE.replace(old, new)))


def test_what_is_asked_for_its_health_is_the_server_where_it_is_exposed():
    words = dict(instructions(DOCKERFILE))
    assert words["EXPOSE"] == str(Settings().port)
    (url,) = re.findall(r'urlopen\("http://127\.0\.0\.1:(\d+)(/\w+)"', words["HEALTHCHECK"])
    assert url == (words["EXPOSE"], "/health")
    script = words["HEALTHCHECK"].partition(" CMD ")[2]
    assert subprocess.run(["sh", "-n", "-c", script]).returncode == 0


@pytest.mark.parametrize(("comm", "code"), [("bash", 0), ("python", 1)])
def test_a_shell_is_well_and_a_server_that_does_not_answer_is_not(comm, code, tmp_path):
    script = dict(instructions(DOCKERFILE))["HEALTHCHECK"].partition(" CMD ")[2]
    (tmp_path / "comm").write_text(comm)
    script = (
        script.replace("/proc/1/comm", str(tmp_path / "comm"))
        .replace(":8000/", ":9/")
        .replace("python", sys.executable)
    )
    assert subprocess.run(["sh", "-c", script], capture_output=True).returncode == code


def test_nothing_that_git_tracks_is_kept_out():
    asked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if asked.returncode:
        pytest.skip("not a git repository")
    assert [path for path in asked.stdout.splitlines() if hidden(path, IGNORED)] == []
    assert not hidden(".git/HEAD", IGNORED)  # the hooks need it


@pytest.mark.parametrize("path", [".venv/bin/python", "data/MNIST/raw/x", "runs/x", "Plots/x.png", "src/__pycache__/x"])
def test_what_runs_and_tools_make_is_kept_out(path):
    assert hidden(path, IGNORED)
