"""The object that newcomers type at: its samples are the library's, its edits keep what they must keep."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion import configure, load
from diffusion.__main__ import main
from diffusion.api.generation import generate, trajectory
from diffusion.data.datasets import load as load_data
from diffusion.errors import UserError
from diffusion.experiment.samplers import SamplingOptions
from diffusion.method.noise import Noise

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model():
    return load("unet")


@pytest.fixture(scope="module")
def digits():
    data = load_data("MNIST", "test", ROOT / "data")
    return data.images[:4] / 255, data.labels[:4]


def test_samples_are_those_of_the_library_in_any_batch(model):
    images = model.sample(5, label=3, guidance_scale=2, steps=4, seed=9, batch_size=2)
    options = SamplingOptions(steps=4, guidance_scale=2)
    *_, whole = trajectory(model.experiment, torch.arange(5), options, seed=9, labels=3)
    torch.testing.assert_close(images, whole, atol=0.02, rtol=0)  # bf16 rounds otherwise in another batch
    assert images.min() >= 0 and images.max() <= 1


def test_samples_tell_of_every_state_on_the_way(model):
    heard = []
    options = SamplingOptions("ddim", 4)
    images = generate(model.experiment, torch.arange(5, 12), options, seed=3, batch_size=3, tick=heard.append)
    assert images.shape == (7, 1, 28, 28)
    assert torch.allclose(
        images, model.sample(12, torch.arange(12) % 10, seed=3, sampler="ddim", steps=4)[5:], atol=1e-4
    )
    assert heard == [3] * 5 + [3] * 5 + [1] * 5  # 4 steps and the start, of two full batches and a rest
    assert generate(model.experiment, torch.arange(0)).shape == (0, 1, 28, 28)


def test_without_a_label_every_digit_is_drawn_in_turn(model):
    turn, told = model.sample(4, steps=3), model.sample(4, label=torch.tensor([0, 1, 2, 3]), steps=3)
    assert torch.equal(turn, told)
    assert not torch.equal(turn, model.sample(4, label=5, steps=3))


def test_the_trajectory_begins_in_noise_and_ends_on_the_sample(model):
    states = model.trajectory(2, label=7, snapshots=4, steps=6, seed=1)
    assert states.shape == (4, 2, 1, 28, 28)
    x_1 = Noise(1, torch.arange(2))(torch.empty(2, 1, 28, 28))
    assert torch.equal(states[0], model.decode(x_1))
    assert torch.equal(states[-1], model.sample(2, label=7, steps=6, seed=1))


def test_forward_diffusion_is_the_formula_and_hands_out_its_noise(model, digits):
    images, _ = digits
    x_t, noise = model.forward_diffusion(images, 0.25, seed=4)
    torch.testing.assert_close(x_t, 0.75 * (2 * images - 1) + 0.25 * noise)  # straight lines: alpha = 1 - t, sigma = t
    assert abs(noise.mean()) < 0.07 and abs(noise.std() - 1) < 0.05
    ddpm = configure(timesteps=100)
    t = torch.linspace(0.1, 1, 4, dtype=torch.float64)
    x_t, noise = ddpm.forward_diffusion(images, t)
    alpha, sigma = (each.float().reshape(-1, 1, 1, 1) for each in ddpm.experiment.process.schedule(t))
    torch.testing.assert_close(x_t, alpha * (images - 0.5) + sigma * noise)


def test_a_trained_model_sees_the_digit_behind_a_little_noise(model, digits):
    images, labels = digits
    x_t, noise = model.forward_diffusion(images, 0.3)
    seen = model.denoise(x_t, 0.3, label=labels)
    assert (seen - images).square().mean().sqrt() < 0.5 * (model.decode(x_t) - images).square().mean().sqrt()
    assert (model.predict_noise(x_t, 0.3, labels) - noise).square().mean().sqrt() < 0.35  # 1 would be no idea at all


@torch.no_grad()
def test_noise_and_x_0_of_one_answer_agree(model, digits):
    """alpha x_0 + sigma eps is x_t, whatever the network regresses."""
    x_t, _ = model.forward_diffusion(digits[0], 0.5)
    x_0 = model._x_0(x_t, 0.5, None, SamplingOptions(clip=False))
    torch.testing.assert_close(0.5 * x_0 + 0.5 * model.predict_noise(x_t, 0.5), x_t, atol=1e-5, rtol=0)


def test_configure_builds_what_it_is_told():
    model = configure(schedule="cosine", target="v", shape=(3, 32, 32), network="unet", hidden=(16, 16))
    assert model.sample(2, steps=2).shape == (2, 3, 32, 32)
    with pytest.raises(UserError, match="did you mean 'timesteps'"):
        configure(timestep=5)


# --- Editing ---


def test_inpainting_keeps_the_rest_to_the_bit_and_draws_something_there(model, digits):
    images, labels = digits
    mask = torch.zeros(28, 28)
    mask[:, 14:] = 1
    filled = model.edit.inpaint(images, mask, label=labels, steps=10, resample=2)
    assert torch.equal(filled[..., :14], images[..., :14])
    assert (filled[..., 14:] - images[..., 14:]).abs().mean() > 0.01
    assert filled[..., 14:].max() > 0.5  # ink


def test_a_weak_variation_is_nearer_than_a_strong_one(model, digits):
    images, labels = digits
    distance = lambda strength: (model.edit.vary(images, strength, labels) - images).square().mean()
    assert distance(0.1) < distance(0.5) < distance(1.0)


def test_to_the_noise_and_back(model, digits):
    images, labels = digits
    back, error = model.edit.reconstruct(images, labels, steps=20)
    torch.testing.assert_close(error, (back - images).square().mean((1, 2, 3)).sqrt())
    _, rough = model.edit.reconstruct(images, labels, steps=20, refine=0)
    assert error.max() < 0.03 and error.mean() < 0.5 * rough.mean()


def test_an_interpolation_ends_on_its_ends(model, digits):
    row = model.edit.interpolate(3, 4, count=5, label=2, steps=10)
    for seed, image in ((3, row[0]), (4, row[-1])):
        expected = model.sample(1, label=2, sampler="ddim", steps=10, seed=seed)[0]
        torch.testing.assert_close(image, expected, atol=0.03, rtol=0)
    images, labels = digits
    between = model.edit.interpolate(images[0], images[1], count=2, steps=20)
    assert (between[0] - images[0]).abs().mean() < 0.05 and (between[-1] - images[1]).abs().mean() < 0.05


def test_what_was_sampled_from_a_seed_is_edited_with_other_noise(model):
    """With the same, a variation of strength 1 would be the very image."""
    digits = model.sample(4, label=[0, 3, 5, 8], steps=5)
    distance = lambda images: (images - digits).square().mean((1, 2, 3)).sqrt()
    assert distance(model.edit.vary(digits, 1.0, [0, 3, 5, 8], steps=5)).min() > 0.1
    assert distance(model.restore(digits, [0, 3, 5, 8], steps=5)).min() > 0.1
    _, noise = model.forward_diffusion(digits, 1.0)
    x_1 = model.experiment.process.prior(digits, Noise(0, torch.arange(4)))
    assert abs((noise * x_1).mean()) < 0.1
    assert torch.equal(model.edit.vary(digits, seed=np.int64(3), steps=2), model.edit.vary(digits, seed=3, steps=2))


def test_what_is_to_be_filled_may_be_anything(model, digits):
    images, labels = digits
    mask = torch.zeros(28, 28, dtype=torch.bool)
    mask[:, 14:] = True
    how = {"label": labels, "steps": 3, "resample": 1}
    holes = images.masked_fill(mask, torch.nan)
    assert torch.equal(model.edit.inpaint(holes, mask, **how), model.edit.inpaint(images.numpy(), mask.numpy(), **how))


def test_a_network_that_answers_x_0_can_be_asked_at_t_0():
    small = configure(schedule="rectified", target="x_0", shape=(1, 8, 8), network="unet", hidden=(8, 8))
    x, t = torch.rand(2, 1, 8, 8), torch.tensor([0.0, 0.5])
    assert small.denoise(x, t).isfinite().all()


def test_a_cold_model_of_few_groups_is_varied_by_default():
    cold = configure(process="averaging", target="x_0", timesteps=7, noise=0.075)
    images = torch.rand(2, 1, 28, 28)
    for strength in (0.1, 0.5, 1.0):
        assert cold.edit.vary(images, strength).shape == images.shape
    for method in ("invert", "reconstruct"):
        with pytest.raises(UserError, match="Gaussian noise; this one is cold"):
            getattr(cold.edit, method)(images)
    with pytest.raises(UserError, match="nothing to guide"):
        cold.sample(2, guidance_scale=2)


def test_a_likelihood_is_the_same_where_gradients_are_forbidden(model, digits):
    images, labels = digits
    free = model.bits_per_dim(images, labels, steps=3)
    with torch.inference_mode():
        assert torch.equal(model.bits_per_dim(images, labels, steps=3), free)


def test_a_likelihood_is_in_float32_and_unguided_whatever_was_saved(digits):
    plain, saved = load("unet"), load("unet")
    plain.experiment.denoiser.bf16 = False
    saved.experiment.config = saved.config.replace(guidance_scale=3.0)
    assert saved.experiment.denoiser.bf16
    images, labels = (each[:2] for each in digits)
    assert torch.equal(*(each.bits_per_dim(images, labels, steps=2) for each in (plain, saved)))


def test_digits_are_likelier_than_noise(model, digits):
    images, labels = digits
    digit, noise = (
        model.bits_per_dim(images[:3], labels[:3], steps=10),
        model.bits_per_dim(torch.rand(3, 1, 28, 28), steps=10),
    )
    assert digit.max() < noise.min() - 1
    assert noise.mean() > 7.5  # uniform noise cannot cost less than the 8 bits that it has, but for what 3 images vary


# --- Mistakes ---


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (lambda m, x: m.sample(4, label=10), "0 to 9, not 10"),
        (lambda m, x: m.sample(4, label=-1), "0 to 9, not -1"),
        (lambda m, x: m.sample(0), "at least 1"),
        (lambda m, x: m.sample(4, steps=-3), "not -3"),
        (lambda m, x: m.sample(4, sampler="dmp"), "did you mean 'dpm'"),
        (lambda m, x: m.sample(4, guidance_scale=float("nan")), "nan"),
        (lambda m, x: m.forward_diffusion(x, 500), "0.5 is step 500 of 1000"),
        (lambda m, x: m.forward_diffusion(x[:, :, 1:], 0.5), "needs"),
        (lambda m, x: m.denoise(x, [0.5, 0.5]), "one for each image"),
        (lambda m, x: m.trajectory(2, steps=3, snapshots=9), "from 2 to 4"),
        (lambda m, x: m.edit.inpaint(x, torch.zeros(14, 14)), "mask"),
        (lambda m, x: m.edit.inpaint(x, torch.full((28, 28), 0.5)), "mask"),
        (lambda m, x: m.edit.vary(x, 1.5), "strength"),
        (lambda m, x: m.edit.interpolate(1, 2, count=1), "at least 2"),
        (lambda m, x: load("unets"), "did you mean 'unet'"),
        (lambda m, x: load("unet", "cudaa"), "device 'cudaa' cannot be used"),
        (lambda m, x: m.sample(4, label=[1, 2, 3]), "need one label or 4"),
        (lambda m, x: m.sample(4, label="three"), "0 to 9, not 'three'"),
        (lambda m, x: m.sample(4, label=[True, False, True, True]), "0 to 9"),
        (lambda m, x: m.sample(2.5), "whole number .* not 2.5"),
        (lambda m, x: m.sample(4, steps="4"), "whole number .* not '4'"),
        (lambda m, x: m.sample(4, seed=1.5), "a seed must be a whole number"),
        (lambda m, x: m.sample(4, batch_size=-1), "batch_size must be"),
        (lambda m, x: m.sample(4, variance="gamma"), "unknown variance"),
        (lambda m, x: m.sample(4, guidance_scale="2"), "guidance scale is a number"),
        (lambda m, x: m.sample(4, interval=0.5), "interval is two times"),
        (lambda m, x: m.denoise(x, 0.5, guidance_scale=2), "guidance needs a label"),
        (lambda m, x: m.denoise(x[0], 0.5), "x_t of shape .* needs"),
        (lambda m, x: m.denoise(x, "half"), "t is one time"),
        (lambda m, x: m.predict_noise(x, 0.0), "t must be above 0"),
        (lambda m, x: m.forward_diffusion(2 * x, 0.5), "floats from 0 to 1; these go from 0 to 2"),
        (lambda m, x: m.forward_diffusion((255 * x).long(), 0.5), "not torch.int64"),
        (lambda m, x: m.bits_per_dim(x * torch.nan), "floats from 0 to 1"),
        (lambda m, x: configure(timesteps=1).bits_per_dim(x), "two noise levels"),
        (lambda m, x: m.restore(x[:0]), "this model needs"),
        (lambda m, x: m.edit.vary("digit"), "images must be a tensor"),
        (lambda m, x: m.edit.vary(x, float("nan")), "strength"),
        (lambda m, x: m.edit.vary(x, 0.5, guidance_scale=2), "guidance needs a label"),
        (lambda m, x: m.edit.inpaint(x, torch.ones(28, 28), sampler="heun"), "by ddpm or ddim alone, not by 'heun'"),
    ],
)
def test_a_mistake_is_one_sentence(model, digits, mistake, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        mistake(model, digits[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["sample", "trajectory", "restore", "denoise", "predict_noise", "bits_per_dim"])
def test_every_keyword_is_spelled_and_any_other_is_refused_by_name(model, digits, method):
    for thing, name in (
        (model, method),
        *((model.edit, each) for each in ("inpaint", "vary", "interpolate", "invert")),
    ):
        kinds = {each.kind for each in inspect.signature(getattr(thing, name)).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds
    with pytest.raises(TypeError, match="unexpected keyword argument 'guidance'"):
        getattr(model, method)(digits[0], guidance=2)
    assert "timesteps" in inspect.signature(configure).parameters


def test_a_cold_model_restores_a_digit_from_its_averages_and_a_hot_one_draws_another(model, digits):
    digits, _ = digits
    error = lambda images, others: (images - others).square().mean((1, 2, 3)).sqrt().mean()
    cold = load("custom_mnist_8_row_cold_unet")
    for way in ("direct", "alg1", "alg2"):
        back = cold.restore(digits, sampler=way)
        assert error(back, digits) < 0.8 * error(back, digits.roll(1, 0))
    hot = lambda images: model.restore(images, steps=3, sampler="ddim")
    assert torch.equal(hot(digits), hot(digits.flip(0)))  # nothing was left


def test_a_cold_model_knows_no_labels_and_no_noise():
    model = load("custom_mnist_8_row_cold_unet")
    with pytest.raises(UserError, match="know no labels"):
        model.sample(2, label=3)
    with pytest.raises(UserError, match="use denoise"):
        model.predict_noise(torch.zeros(1, 1, 28, 28), 0.5)
    x_t, noise = model.forward_diffusion(torch.rand(2, 1, 28, 28), 1.0)
    assert model.denoise(x_t, 1.0).shape == (2, 1, 28, 28) and abs(noise.std() - 1) < 0.1


def test_the_demo_writes_its_four_pictures(tmp_path, capsys):
    main(["demo", "--count", "4", "--ddpm-steps", "20", "--ddim-steps", "5", "--out", str(tmp_path)])
    names = ("forward", "ddpm_samples", "ddim_samples", "trajectory")
    assert {path.name for path in tmp_path.iterdir()} == {f"diffusion_mnist_{name}.png" for name in names}
    assert "times faster here, with 4 times fewer steps" in capsys.readouterr().out
