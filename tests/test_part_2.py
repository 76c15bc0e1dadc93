"""Part 2, the training grounds and restorations, as a person runs them."""

import numpy as np
import pytest
import torch
from in_process import DATA, files_in, run

from diffusion import files
from diffusion.experiment.build import build
from diffusion.experiment.presets import COLD
from diffusion.experiment.weights import load_weights
from diffusion.method.averaging import Averaging, line_order
from diffusion.method.mixture import Mixture
from diffusion.method.noise import Noise
from diffusion.networks.unet import UNet
from diffusion.training import trainer


@pytest.fixture(autouse=True, scope="module")
def quickly_fitted():
    """Priors are learned from 2,000 images instead of 20,000."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch.setattr(trainer, "FITTED", 2000)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("cold")
    words = ["--limit-steps", 3, "--batch-size", 32, "--eval-samples", 20, "--eval-seeds", 2, "--out", out, *DATA]
    done = run("src/part_2.py", 1, "default_7", "row", *words)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_part_2_writes_what_the_coursework_writes_and_compares_the_ways_back(finished):
    out, said = finished
    kinds = ("custom", "original", "degraded", "direct", "unconditional")
    assert files_in(out) == {
        *(f"Plots/{name}_for_custom_row_default_7.png" for name in ("losses", "fid", "incept_score")),
        *(f"contents_custom/{kind}_sample_{epoch:04d}_row_default_7.png" for kind in kinds for epoch in (0, 1)),
        *(f"runs/custom_row_default_7/custom_mnist_{epoch}_row_default_7.pth" for epoch in (0, 1)),
        *(f"runs/custom_row_default_7/{name}" for name in ("state.pt", "metrics.jsonl", "config.json")),
    }
    for word in ("direct", "alg1", "alg2", "SSIM", "RMSE", "label kept", "mean grey", "unconditional", "floor"):
        assert word in said, word


def test_generate_restores_test_images_and_draws_new_ones(finished, tmp_path):
    out, _ = finished
    weights = out / "runs/custom_row_default_7/custom_mnist_1_row_default_7.pth"
    files = {name: tmp_path / f"{name}.npy" for name in ("x", "y", "z")}
    draw = ["generate", "--weights", weights, "--count", 5, "--out", files["x"], *DATA]
    more = ["--from", "test", "--sampler", "alg2", "--originals", files["y"], "--labels", files["z"]]
    done = run("src", *draw, *more)
    assert done.returncode == 0, done.stderr
    x, y, z = (np.load(path) for path in files.values())
    assert x.shape == y.shape == (5, 1, 28, 28) and z.tolist() == [7, 2, 1, 0, 4]  # the first test labels of MNIST
    assert y.max() == 1 and not np.allclose(x, y)
    done = run("src", *draw)
    assert done.returncode == 0, done.stderr
    new = np.load(files["x"])
    assert new.std() > 0.01 and abs(new[0] - new[1]).max() > 0.01


def test_the_fitted_prior_travels_with_the_weights(finished):
    experiment = load_weights(finished[0] / "runs/custom_row_default_7/custom_mnist_1_row_default_7.pth")
    experiment.process.sigma, like = 0.0, torch.empty(500, 1, 28, 28)
    x_1 = experiment.process.prior(like, Noise(0, torch.arange(500)))
    torch.testing.assert_close(experiment.process.degrade(x_1, torch.tensor(1.0)), x_1)  # averaged already
    assert 0.09 < experiment.codec.decode(x_1).mean() < 0.18  # MNIST's mean grey is 0.13


@pytest.mark.parametrize("words, says", [
    (["1", "defualt_28", "row"], "did you mean 'default_28'"),
    (["1", "default_7", "rwo"], "did you mean 'row'"),
    (["1", "default_7"], "AXIS"),
    (["1", "default_7", "row", "--order", "insideout"], "did you mean 'inside-out'"),
    (["1", "default_7", "row", "--sampler", "alg2", "--steps", "8"], "from 1 to 7"),
    (["1", "default_7", "row", "--sampler", "ddim"], "unknown sampler"),
])  # fmt: skip
def test_wrong_input_to_part_2(tmp_path, words, says):
    refused("src/part_2.py", words, says, tmp_path)


@pytest.mark.parametrize("words, says", [
    (["1", "default_7", "False"], "unknown preset 'default_7'"),
    (["1", "testing", "True", "row"], "unknown preset 'testing'"),
    (["1", "default_7", "True"], "needs an AXIS"),
    (["1", "default", "no", "row"], "averages no lines: leave 'row' out"),
    (["0", "default", "False", "--noise", "3"], "averages no lines: leave 3.0 out"),
    (["0", "default", "False", "--order", "outside-in"], "averages no lines: leave 'outside-in' out"),
    (["1", "default", "maybe"], "allowed: true, yes, false, no"),
])  # fmt: skip
def test_wrong_input_to_the_training_grounds(tmp_path, words, says):
    refused("src/training_grounds.py", words, says, tmp_path)


def refused(script, words, says, out):
    left = run(script, *words, "--out", out, *DATA)
    assert left.returncode == 2 and says in left.stderr and left.stderr.count("\n") == 1
    assert not any(out.iterdir())


@pytest.mark.parametrize("words, path", [
    (["testing", "false"], "runs/DDPM_testing/ddpm_mnist_1_testing.pth"),
    (["default_7", "Yes", "col"], "runs/custom_col_default_7/custom_mnist_1_col_default_7.pth"),
])  # fmt: skip
def test_the_training_grounds_train_either_kind_and_keep_weights_only(tmp_path, words, path):
    more = ["--limit-steps", 2, "--batch-size", 16, "--out", tmp_path, *DATA]
    done = run("src/training_grounds.py", 1, *words, *more)
    assert done.returncode == 0, done.stderr
    assert load_weights(tmp_path / path).about["epoch"] == 1
    assert {each.name for each in tmp_path.iterdir()} == {"runs"}


def test_the_mixture_recovers_a_mixture():
    """Two well separated Gaussians in three dimensions: weights, means and spreads come back in its draws."""
    g = torch.Generator().manual_seed(0)
    side = torch.rand(4000, 1, generator=g) < 0.3
    values = torch.where(side, torch.tensor([2.0, 0.0, -1.0]), torch.tensor([-1.0, 1.0, 1.0]))
    values = values + 0.2 * torch.randn(4000, 3, generator=g)
    mixture = Mixture(8, 3)
    assert not mixture.fitted
    tried = mixture.fit(values)
    assert mixture.fitted and [k for k, _ in tried] == [1, 2, 8]
    assert dict(tried)[2] > dict(tried)[1] + 0.5  # nats: one Gaussian cannot say it
    x = mixture.draw(torch.empty(4000, 1, 2, 2), Noise(0, torch.arange(4000)))
    left = x[:, 0] > 0.5
    assert left.float().mean().item() == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(x[left].mean(0), torch.tensor([2.0, 0.0, -1.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(x[~left].std(0), torch.full((3,), 0.2), atol=0.02, rtol=0)


@pytest.mark.parametrize("axis, key", [("row", "rows_t"), ("col", "cols_t")])
@pytest.mark.parametrize("groups", [28, 7])
def test_the_courseworks_cold_state_dicts_load_and_restore(tmp_path, axis, key, groups):
    """Order from the file, network time t/T, Algorithm 2 written out plainly with the naive averaging of its test."""
    from test_averaging import naive

    experiment = build(COLD[f"default_{groups}"].replace(axis=axis, seed=5, precision="fp32"))
    order = line_order("random", 28, seed=9).reshape(groups, -1)
    state = {f"gt.{name}": value for name, value in experiment.denoiser.network.state_dict().items()}
    state[key] = order.squeeze(1)
    path = tmp_path / f"custom_mnist_80_{axis}_default_{groups}.pth"
    torch.save(state, path)
    loaded = load_weights(path)
    assert loaded.about["epoch"] == 80 and loaded.config.axis == axis and loaded.config.timesteps == groups

    from diffusion.api.generation import trajectory
    from diffusion.experiment.samplers import SamplingOptions

    images = torch.rand(2, 1, 28, 28)
    blur = lambda x, t: naive(x, torch.full((2,), t / groups), axis, order)
    for begin in (0, 1):  # at T, and at T - 1 as the coursework did
        options = SamplingOptions("alg2", clip=False, begin=begin)
        *_, ours = trajectory(loaded, torch.arange(2), options, originals=images)
        with torch.no_grad():
            x = blur(images - 0.5, groups - begin)
            for t in range(groups - begin, 0, -1):
                guess = experiment.denoiser.network(x, torch.full((2,), t / groups))
                x = x - blur(guess, t) + blur(guess, t - 1)
        torch.testing.assert_close(ours, (x + 0.5).clamp(0, 1), atol=1e-3, rtol=0)


def test_the_unet_answers_a_constant_at_first_and_treats_each_image_alone():
    torch.manual_seed(0)
    network, x, t = UNet((3, 32, 32), (16, 32)), torch.randn(4, 3, 32, 32), torch.rand(4)
    torch.testing.assert_close(network(x, t), network(-2 * x, t.flip(0)))  # a constant, whatever it is asked
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.testing.assert_close(network(x, t)[2:3], network(x[2:3], t[2:3]), atol=1e-4, rtol=1e-4)
    assert (network(x, t) - network(x, t.flip(0))).abs().max() > 1e-3  # time matters
    assert network(x[:, :, :28, :28], t).shape == (4, 3, 28, 28)


def test_a_number_of_groups_that_does_not_divide_the_lines_is_refused():
    from diffusion.errors import UserError

    with pytest.raises(UserError, match="28 lines do not divide into 9 groups"):
        build(COLD["default_7"].replace(timesteps=9))


def test_a_resumed_cold_run_keeps_its_order_and_prior(finished):
    state = files.load(finished[0] / "runs/custom_row_default_7/state.pt")
    process = Averaging("row", line_order("random", 28, 0).reshape(7, 4))
    assert torch.equal(state["process"]["rank"], process.rank)
    assert state["process"]["averages.weights"].sum().item() == pytest.approx(1, abs=1e-4)
