"""Every shipped denoiser loads, draws digits that its classifier knows, and says how it was scored."""

from pathlib import Path

import pytest
import torch

from diffusion.experiment import load_weights, trajectory
from diffusion.extractor import extractor_for

WEIGHTS = Path(__file__).parents[1] / "weights"
SHIPPED = [path for path in sorted(WEIGHTS.glob("*.pth")) if not path.stem.startswith("classifier_")]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_denoiser_draws_digits(path):
    experiment = load_weights(path)
    about = experiment.about
    assert about["holds"] == "ema" and about["scores"]["fid"] > about["scores"]["floor"] > 0
    *_, images = trajectory(experiment, torch.arange(48), seed=1, steps=28)
    _, logits = extractor_for("MNIST", WEIGHTS)(images)
    assert logits.softmax(1).max(1).values.mean() > 0.75  # noise gives 0.3, real digits 0.98
    assert len(logits.argmax(1).unique()) >= 8
