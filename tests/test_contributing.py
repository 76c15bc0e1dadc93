"""What CONTRIBUTING.md shows works as shown, and the files it points to are there."""

import re
from pathlib import Path

import pytest
import torch
from test_sampler import M, Oracle, S

from diffusion.experiment.build import build
from diffusion.experiment.presets import DDPM, preset
from diffusion.laboratory import options
from diffusion.method.denoiser import Denoiser
from diffusion.method.noise import Noise
from diffusion.method.process import Gaussian
from diffusion.method.sampler import last, sample
from diffusion.method.schedule import Rectified

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setitem(DDPM, "cosine", None)  # taken back afterwards
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    return names


def test_the_process_it_shows_is_undone_by_a_denoiser_that_knows(shown, capsys):
    process, x_0 = shown["Fading"](), torch.rand(3, 1, 4, 4) - 0.5
    assert torch.equal(process.degrade(x_0, torch.tensor(0.0)), x_0)
    start = process.prior(x_0)
    torch.testing.assert_close(start, process.degrade(x_0, torch.tensor(1.0)))
    torch.testing.assert_close(last(sample(lambda x, t, cond: x_0, process, start, process.times(7))), x_0)


def test_the_sampler_it_shows_lands_where_the_others_do(shown):
    process = Gaussian(Rectified(), eta=0.0)
    noise = Noise(0, torch.arange(4096))
    start = process.prior(torch.empty(4096, 1, 2, 2), noise)
    denoiser = Denoiser(Oracle(process.schedule, "velocity"), process.schedule, "velocity")
    x = last(shown["twice"](denoiser, process, start, process.times(100), noise))
    assert (x.mean().item(), x.std().item()) == (pytest.approx(M, abs=0.015), pytest.approx(S, abs=0.02))


def test_the_preset_it_shows_can_be_built_and_found(shown):
    experiment = build(preset(DDPM, "cosine"))
    assert experiment.config.target == "v"
    with pytest.raises(Exception, match="did you mean 'cosine'"):
        options.one_of("preset", DDPM)("cosin")


def test_the_files_it_names_are_there():
    linked = re.findall(r"\]\((.*?)\)", PAGE)
    assert len(linked) >= 8
    for path in linked + re.findall(r"`((?:tests|benchmarks|src)/[\w/.]+)`", PAGE):
        assert (ROOT / path).exists(), path
