"""What a caller has set in torch changes no image and no score, and is still set afterwards; models can be copied."""

import copy
import pickle
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffusion import configure, load
from diffusion.api.generation import generate
from diffusion.data.datasets import load as load_data
from diffusion.errors import UserError
from diffusion.metrics.coverage import coverage, neighbours
from diffusion.metrics.features import extractor_for
from diffusion.metrics.likeness import agreement, likeness
from diffusion.metrics.scores import Reference, score

ROOT = Path(__file__).parents[1]


@contextmanager
def default_dtype(dtype: torch.dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS = {
    "float64": partial(default_dtype, torch.float64),
    "bfloat16": partial(default_dtype, torch.bfloat16),
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "device": partial(torch.device, "meta"),  # holds no numbers: whatever came to be there, nothing could be drawn from
}


def set_now() -> tuple:
    return torch.get_default_dtype(), torch.get_default_device(), torch.is_autocast_enabled("cpu")


def drawn() -> dict[str, Tensor]:
    """One of everything that a model can do, and of what a new one is made."""
    hot, cold = load("unet"), load("custom_mnist_8_row_cold_unet")
    x = hot.sample(2, seed=1, steps=2)
    x_t, noise = hot.forward_diffusion(x, [0.3, 0.7])
    small = {"shape": (1, 8, 8), "timesteps": 8}
    made = {
        "x": x,
        "generate": generate(hot.experiment, torch.arange(2, device="cpu")),
        **{name: hot.sample(2, sampler=name, steps=4, label=[1, 2]) for name in ("ddim", "heun", "dpm", "sde")},
        "trajectory": hot.trajectory(2, steps=3),
        "x_t": x_t,
        "noise": noise,
        "guided": hot.denoise(x_t, [0.3, 0.7], 3, guidance_scale=2),
        "eps": hot.predict_noise(x_t, [0.3, 0.7]),
        "bits": hot.bits_per_dim(x, steps=2),
        "inpaint": hot.edit.inpaint(x, [[0, 1] * 14] * 28, steps=2, resample=2),
        "vary": hot.edit.vary(x, 0.5, steps=2),
        "between": hot.edit.interpolate(1, x[0], count=3, steps=3),
        "back": hot.edit.reconstruct(x, steps=3)[0],
        "new linear": configure(**small).sample(2),
        "new cold": configure(process="averaging", target="x_0", **small).restore([[[[0.25] * 8] * 8]]),
    }
    return (
        made
        | {f"cold {name}": cold.restore(x, sampler=name) for name in ("alg1", "alg2", "pinned", "direct")}
        | {"cold": cold.sample(2)}
    )


def measured() -> list:
    data, seen = load_data("MNIST", "test", ROOT / "data"), extractor_for("mnist", ROOT / "weights")
    some = data.shuffled(3)[torch.arange(40, device="cpu")]
    others, reference = data.stratified(60, 1), Reference.of(seen, data.images[:80])
    like = likeness(seen, some.images.flip(3), some.images / 255, some.labels.tolist())
    numbers = [score(some.images, reference), coverage(some.images, reference), like]
    near = neighbours(some.images, others.images)
    return [
        *numbers,
        agreement(seen, others.images, others.labels),
        *(each.tolist() for each in near),
        others.labels.tolist(),
    ]


@pytest.fixture(scope="module")
def usual():
    return drawn(), measured()


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_settings_of_a_caller_change_no_image_and_no_score(setting, usual):
    images, scores = usual
    with SETTINGS[setting]():
        before = set_now()
        found, measures = drawn(), measured()
        assert set_now() == before
        with pytest.raises(UserError):
            load("unet").sample(0)
        assert set_now() == before
    assert set_now() == (torch.float32, torch.device("cpu"), False)
    assert [name for name in images if not torch.equal(images[name], found[name])] == []
    assert measures == scores


@pytest.mark.parametrize("name", ["unet", "ddpm_mnist_100_default", "custom_mnist_8_row_cold_unet"])
def test_a_model_can_be_pickled_and_copied(name):
    model = load(name)
    expected = model.sample(2, steps=2)
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(twin.sample(2, steps=2), expected)
        assert twin.config == model.config and twin.experiment.about == model.experiment.about
        for weight in twin.experiment.denoiser.parameters():
            weight.data.zero_()
    assert torch.equal(model.sample(2, steps=2), expected)  # a copy shares nothing with it


@pytest.mark.parametrize("target", ["x_0", "v", "velocity"])
def test_a_linear_schedule_keeps_some_of_x_0_until_t_is_1(target):
    settings = {"shape": (1, 8, 8), "network": "unet", "hidden": (8, 8), "target": target}
    with pytest.raises(UserError, match="take alpha to 0 before t = 1"):
        configure(timesteps=1000, beta_max=0.999, **settings)
    steep = configure(timesteps=1000, beta_max=0.9, **settings)  # alpha is 1e-159 at t = 0.999
    for sampler in ("ddpm", "ddim", "heun", "dpm", "sde"):
        assert steep.sample(2, sampler=sampler, steps=8).isfinite().all()
