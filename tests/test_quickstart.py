"""`make demo`: digits at once, then a training in pictures, and a table of what came of it."""

import re
from pathlib import Path

import pytest
from PIL import Image

from diffusion import load
from diffusion.__main__ import main
from diffusion.commands import quickstart

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(120)
def test_the_quickstart_draws_trains_and_tells(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quickstart, "CONFIG", quickstart.CONFIG.replace(hidden=(8, 16)))
    words = ["--minutes", "1", "--limit-steps", "26", "--eval-samples", "32", "--device", "cpu"]
    words += ["--out", str(tmp_path), "--data-root", str(ROOT / "data")]
    assert main(["quickstart", *words, "--seed", "5"]) is None
    said = capsys.readouterr().out
    first, second, *_ = said.splitlines()
    assert first.startswith(f"{tmp_path}/contents/quickstart_shipped.png: 100 uncurated digits")
    assert "training 1 minutes on 60,000 images of MNIST" in second
    assert "FID" in said and "label agreement" in said and "after 26 steps" in said and "floor" in said
    high = lambda name: Image.open(tmp_path / f"contents/quickstart_{name}.png").size[1]
    assert high("learning") == 4 * (3 * 29 + 1)  # a row of digits after 0, 25 and 26 steps
    assert high("shipped") == 4 * (10 * 29 + 1)
    assert Image.open(tmp_path / "Plots/losses_for_quickstart.png").size[0] > 500
    assert main(["quickstart", *words, "--resume"]) is None  # by the seed that it was begun with
    scores = lambda text: re.findall(r"after 26 steps(.*)%", text)
    assert scores(capsys.readouterr().out) == scores(said) != []
    assert load(str(tmp_path / "runs/quickstart/quickstart.pth")).sample(2, steps=2).shape == (2, 1, 28, 28)
