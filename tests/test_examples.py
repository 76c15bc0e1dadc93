"""The request scripts of examples/ run as a person would run them, and get the replies that lie beside them."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from server import running

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = {
    "openai_client.py": "openai_client.json",
    "stream.py": "stream.jsonl",
    "eir_predict.py": "eir_predict.jsonl",
    "generate.sh": "generate.json",
    "inpaint.sh": "inpaint.json",
}


@pytest.fixture(scope="module")
def url():
    with running(weights=("unet", "unet_fashion")) as server:
        yield server.url


def comparable(value, key: str = ""):
    """A reply without its moment, its pictures as pixels."""
    if isinstance(value, dict):
        return {name: comparable(each, name) for name, each in value.items() if name not in ("created", "created_at")}
    if isinstance(value, list):
        return [comparable(each, key) for each in value]
    if key in ("b64_json", "png"):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(value))), np.float32)
    return value


def same(a, b) -> bool:
    """Whether they are equal, pixels and probabilities as nearly as another processor's rounding lets them be."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and np.abs(a - b).mean() < 8
    return abs(a - b) < 0.1 if isinstance(a, float) and isinstance(b, float) else a == b


def parsed(text: str):
    return json.loads(text) if text.lstrip().startswith('{\n  "') else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs_and_gets_its_reply(script, url, tmp_path):
    if script.endswith(".sh") and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    command = ["sh" if script.endswith(".sh") else sys.executable, EXAMPLES / script, url]
    with open(EXAMPLES / "digit.png", "rb") as digit:
        done = subprocess.run(command, cwd=tmp_path, stdin=digit, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    saved = EXAMPLES / "replies" / SCRIPTS[script]
    if os.environ.get("SAVE_REPLIES"):  # after a change that is meant
        saved.write_text(done.stdout)
    assert same(comparable(parsed(done.stdout)), comparable(parsed(saved.read_text())))
    for line in saved.read_text().splitlines() if script == "eir_predict.py" else ():
        assert (tmp_path / json.loads(line)["file"]).stat().st_size == json.loads(line)["bytes"]


def test_every_example_is_run_and_has_its_reply():
    assert {path.name for path in EXAMPLES.glob("*.*") if path.suffix in (".py", ".sh")} == set(SCRIPTS)
    assert {path.name for path in (EXAMPLES / "replies").iterdir()} == set(SCRIPTS.values())
