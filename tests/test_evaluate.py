"""Precision, recall and nearest neighbours on sets where they are known; and the command on shipped weights."""

import json

import pytest
import torch
from in_process import DATA, run
from PIL import Image

from diffusion.__main__ import main
from diffusion.laboratory import options
from diffusion.metrics.coverage import coverage, neighbours
from diffusion.metrics.features import Extractor
from diffusion.metrics.scores import Reference

LOOK = lambda images: (images.flatten(1).float() / 255, images.flatten(1).float()[:, :10])
PIXELS = Extractor("pixels", "0" * 64, 16, "test", (1, 4, 4), torch.device("cpu"), LOOK)


def cloud(n, centre, seed, spread=0.05):
    """Images around a grey value."""
    noise = torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (centre + spread * noise).clamp(0, 1)


def test_the_same_images_are_among_each_other_and_far_ones_are_not():
    real = cloud(200, 0.3, 0)
    reference = Reference.of(PIXELS, real)
    assert coverage(real, reference) == (1.0, 1.0)
    assert coverage(cloud(200, 0.8, 1), reference) == (0.0, 0.0)


def test_half_of_the_truth_is_precise_but_incomplete_and_added_nonsense_the_other_way_round():
    low, high, nonsense = cloud(300, 0.3, 0), cloud(300, 0.7, 1), cloud(300, 0.5, 2, spread=0.4)
    reference = Reference.of(PIXELS, torch.cat([low, high]))
    half = coverage(cloud(600, 0.3, 3), reference)
    assert half.precision > 0.7 and 0.3 < half.recall < 0.55
    mixed = coverage(torch.cat([cloud(150, 0.3, 4), cloud(150, 0.7, 5), nonsense]), reference)
    assert 0.3 < mixed.precision < 0.6 and mixed.recall > 0.8


def test_coverage_is_the_definitions():
    """Kynkäänniemi et al. (2019), equation 1, image by image."""
    real, made = cloud(40, 0.4, 0, 0.1), cloud(40, 0.45, 1, 0.1)
    f, g = ((255 * each).round().flatten(1) / 255 for each in (real, made))

    def share(some, others, k=3):
        radii = [sorted((a - b).norm().item() for b in others)[k] for a in others]  # the 0th is the image itself
        return sum(any((x - a).norm() <= r for a, r in zip(others, radii)) for x in some) / len(some)

    assert coverage(made, Reference.of(PIXELS, real)) == pytest.approx((share(g, f), share(f, g)))


def test_the_nearest_neighbour_is_the_nearest():
    others = cloud(500, 0.5, 0, 0.2)
    images = others[[7, 300, 41]] + 0.004
    distance, index = neighbours(images.clamp(0, 1), others)
    assert index.tolist() == [7, 300, 41]
    assert (distance < 0.01).all()
    assert neighbours(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.2))[0].item() == pytest.approx(0.2, abs=1e-6)


def test_the_command_scores_shipped_weights(tmp_path):
    words = ["--weights", "unet", "--count", 128, "--seeds", 2, "--steps", 3, *DATA]
    done = run("src", "evaluate", *words, "--out", tmp_path / "scores.jsonl", "--sheet", tmp_path / "near.png")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "scores.jsonl").read_text())
    assert facts["calls"] == 3 and len(facts["rows"]) == 2 and facts["samples"] == 128
    for row in facts["rows"]:
        assert row["agreement"] > 0.8 and 0.5 < row["precision"] < 1 and row["fid"] < 8
        assert sum(row["labels"]) == pytest.approx(1, abs=1e-3)
    assert facts["nearest"] > 0.05  # nothing is a copy
    assert Image.open(tmp_path / "near.png").size[0] > 1000
    assert f"{facts['rows'][1]['fid']:.4f}" in done.stdout


def test_the_sampler_is_recorded_where_none_was_saved(tmp_path):
    words = ["--weights", "default", "--count", 16, "--seeds", 1, "--steps", 1, "--out", tmp_path / "x.jsonl", *DATA]
    done = run("src", "evaluate", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "x.jsonl").read_text())["sampler"] == "ddpm"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--samples", "16", "--sheet", "s.png"], "--sheet shows 48"),
        (["--out", "/"], "no file can be written there"),
        (["--out", f"{__file__}/x.jsonl"], "no file can be written there"),
        (["--sheet", "s.jpg"], "must end in .png"),
        (["--seed", str(2**63)], "from 0 to 9223372036854775807"),
        (["--ship", "x.pth"], "--ship does nothing here: unet is no text model"),
        (["--weights", "text_digits", "--sheet", "s.png"], "--sheet does nothing here: text_digits is a text model"),
        (["--weights", "text_digits", "--features", "inception"], "--features does nothing here"),
        (["--weights", "text_digits", "--seeds", "2"], "--seeds does nothing here"),
    ],
)
def test_what_would_fail_at_the_end_is_refused_at_the_beginning(capsys, words, sentence):
    with pytest.raises(SystemExit) as left:
        options.run_command(main, ["evaluate", "--weights", "unet", *words])
    assert left.value.code == 2 and sentence in capsys.readouterr().err
