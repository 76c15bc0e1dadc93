"""schemathesis, from the server's own description: nothing that it describes ends in a failure."""

import subprocess
import sys
from pathlib import Path

import pytest
from server import running

LIMITS = {"weights": ("default@20", "unet"), "max_queue": 500, "max_steps": 20, "deadline": 10}
UNTOLD = "positive_data_acceptance"  # which labels, samplers and words a model knows is in no schema
FORMS = """
[[operations]]
include-path-regex = "/v1/images/(edits|classifications|interpolations)"
checks.negative_data_rejection.enabled = false
"""  # in a form all is text: there is no number that a text could not be


def search(folder: Path, *words: object) -> None:
    """Requests made from the description, valid and not; every answer has to be one that is described."""
    (folder / "schemathesis.toml").write_text(FORMS)
    with running(**LIMITS) as server:
        target = ["run", f"{server.url}/openapi.json", "--exclude-checks", UNTOLD, "--seed", "1", "--no-color"]
        command = [sys.executable, "-m", "schemathesis.cli", *target, "--request-timeout", "30", *map(str, words)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
        assert "11 passed" in done.stdout, "all that is described was asked for"
        server.wait(lambda: not server.engine.open)


def test_what_is_described_is_what_happens(tmp_path):
    search(tmp_path, "--max-examples", 3, "--phases", "examples,fuzzing", "--generation-deterministic")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_what_is_described_is_what_happens_again_and_again(tmp_path):
    search(tmp_path, "--max-examples", 200)
