"""The README's code runs as printed, and what it names is there."""

import re
from pathlib import Path

import torch

from diffusion import load
from diffusion.experiment.naming import NAME
from diffusion.experiment.weights import load_weights

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


SAMPLE, TRAIN = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_ten_lines_that_sample_run():
    names = {}
    exec(SAMPLE, names)
    assert names["digits"].shape == (16, 1, 28, 28)
    assert names["digits"].min() >= 0 and names["digits"].max() <= 1
    error = lambda images: (images - names["digits"]).square().mean().sqrt()
    assert error(names["x_0"]) < 0.6 * error(names["model"].decode(names["x_t"]))  # it sees more than there is to see
    assert names["bits"].max() < 5 and names["cold"].max() > 0.8


def test_the_ten_lines_that_train_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    names = {}
    exec(TRAIN.replace("until=600", "until=10"), names)
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.split("\r") if line]
    assert len(losses) == 10 and losses[-1] < losses[0] and names["images"].shape == (10, 1, 28, 28)
    assert torch.equal(load("digits.pth").sample(10, guidance_scale=2, steps=10), names["images"])


def test_both_are_ten_lines():
    assert max(len(list(filter(None, code.splitlines()))) for code in (SAMPLE, TRAIN)) <= 10


def test_every_file_it_links_to_is_there():
    for path in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / path).exists(), path
    for weights in re.findall(r"--weights (\w+)", README):  # all that it names are shipped
        assert (ROOT / "weights" / f"{weights}.pth").exists(), weights


def epochs(path):
    match = NAME.fullmatch(path.stem)
    return int(match["epoch"]) if match else 0


def test_its_scores_are_those_in_the_shipped_files():
    table = README[README.index("## Results") : README.index("## Map")]
    longest = {}  # what a row is called -> the file of the longest training, if any is shipped
    for path in (ROOT / "weights").glob("*.pth"):
        match = NAME.fullmatch(path.stem)
        called = " ".join(filter(None, (match["preset"], match["axis"]))) if match else path.stem
        longest[called] = max(longest.get(called, path), path, key=epochs)
    compared = 0
    for name, rest in re.findall(r"^\| `(\w+(?: row| col)?)`(.*) \|$", table, re.MULTILINE):
        if name in longest:
            path = longest[name]
            s = load_weights(path).about["scores"]
            places = 4 if s["fid"] < 1 else 2
            assert f"{s['fid']:.{places}f} ± {s['fid_sd']:.{places}f}" in rest, path.name
            assert f" {s['fid'] / s['floor']:.{2 if s['fid'] < 1 else 0}f} " in rest, path.name
            compared += 1
    assert compared >= 5
