"""The coursework's bare state dicts, against a plain rewriting of the coursework's model and sampler, made for it."""

import math

import numpy as np
import pytest
import torch
from oracles import Counting
from torch.nn import functional as F

from diffusion import files
from diffusion.__main__ import main
from diffusion.api.generation import guided_denoiser, trajectory
from diffusion.api.model import configure, load
from diffusion.errors import Failure, UserError
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.sampling import build_sampler
from diffusion.experiment.weights import find_weights, load_weights
from diffusion.files import shipped_weights
from diffusion.method.noise import Noise

T, HIDDEN = 20, (4, 6, 4)


def bare_state(seed=0, hidden=HIDDEN, timesteps=T):
    """A file in the coursework's layout (FACTS: names, shapes), with random weights."""
    g = torch.Generator().manual_seed(seed)
    r = lambda *shape: torch.randn(*shape, generator=g) / math.prod(shape[1:]) ** 0.5
    beta = torch.tensor([1e-4 + (0.02 - 1e-4) * i / timesteps for i in range(timesteps + 1)])
    state = {"beta_t": beta, "alpha_t": torch.exp(torch.cumsum(torch.log(1 - beta), 0))}
    state["gt.frequencies"] = torch.tensor([0.0] + [2 * math.pi * 1.5**i for i in range(15)])
    for i, (a, b) in enumerate(zip((1, *hidden), hidden)):
        state |= {f"gt.blocks.{i}.net.0.weight": r(b, a, 7, 7), f"gt.blocks.{i}.net.0.bias": r(b)}
        state |= {f"gt.blocks.{i}.net.1.weight": 1 + r(b, 28, 28), f"gt.blocks.{i}.net.1.bias": r(b, 28, 28)}
    state |= {f"gt.blocks.{len(hidden)}.weight": r(1, hidden[-1], 3, 3), f"gt.blocks.{len(hidden)}.bias": r(1)}
    for i, (a, b) in zip((0, 2, 4, 6), [(32, 128), (128, 128), (128, 128), (128, hidden[0])]):
        state |= {f"gt.time_embed.{i}.weight": r(b, a), f"gt.time_embed.{i}.bias": r(b)}
    return state


def plain_network(state, x, t, act):
    """The network of FACTS §2, one operation a line."""
    angle = t[:, None] * state["gt.frequencies"]
    h = torch.cat([torch.sin(angle), torch.cos(angle) - 1], 1)
    for i in (0, 2, 4, 6):
        h = F.linear(h, state[f"gt.time_embed.{i}.weight"], state[f"gt.time_embed.{i}.bias"])
        h = act(h) if i < 6 else h
    n = sum(key.endswith("net.0.bias") for key in state)
    for i in range(n):
        x = F.conv2d(x, state[f"gt.blocks.{i}.net.0.weight"], state[f"gt.blocks.{i}.net.0.bias"], padding=3)
        w, b = state[f"gt.blocks.{i}.net.1.weight"], state[f"gt.blocks.{i}.net.1.bias"]
        x = act(F.layer_norm(x, w.shape, w, b))
        if i == 0:
            x = x + h[:, :, None, None]
    return F.conv2d(x, state[f"gt.blocks.{n}.weight"], state[f"gt.blocks.{n}.bias"], padding=1)


def plain_sampler(state, noise, act):
    """Ancestral sampling with variance beta_t, as the coursework does it; digits are z + 0.5."""
    beta, alpha_bar = state["beta_t"].double(), state["alpha_t"].double()
    z = noise(torch.empty(3, 1, 28, 28))
    for i in range(len(beta) - 1, 0, -1):
        eps = plain_network(state, z, torch.full((3,), i / (len(beta) - 1)), act)
        z = (z - beta[i] / torch.sqrt(1 - alpha_bar[i]) * eps) / torch.sqrt(1 - beta[i])
        if i > 1:
            z = z + torch.sqrt(beta[i]) * noise(z)
    return (z + 0.5).clamp(0, 1)


def plain_averages(x, order, t, axis):
    """The lines of the first t groups replaced by the mean of their group, in an image and a group at a time."""
    x = x.clone()
    for image in x:
        for group in order[:t]:
            lines = (slice(None), group) if axis == "row" else (slice(None), slice(None), group)
            image[lines] = image[lines].mean()
    return x


def plain_restoration(state, x, axis):
    """FACTS, literally: the averaged image is called t = T - 1, and there is one more call at t = 0."""
    order = state[f"{axis}s_t"]
    net = lambda z, t: plain_network(state, z, torch.full((len(z),), t / len(order)), F.gelu)
    z = plain_averages(x, order, len(order), axis)
    for t in range(len(order) - 1, 0, -1):
        x_0 = net(z, t)
        z = z - plain_averages(x_0, order, t, axis) + plain_averages(x_0, order, t - 1, axis)
    return net(z, 0)


def cold_state(axis, *groups):
    """A bare state dict of the coursework's cold diffusion, with random weights and a random order of lines."""
    state = {key: value for key, value in bare_state().items() if key.startswith("gt.")}
    order = torch.randperm(28, generator=torch.Generator().manual_seed(3))
    return state | {f"{axis}s_t": order.reshape(groups)}


@pytest.mark.parametrize("axis", ["row", "col"])
@pytest.mark.parametrize("groups", [(28,), (7, 4)])
def test_the_sampler_coursework_is_a_plain_rewriting_of_its_code(tmp_path, axis, groups):
    state, images = cold_state(axis, *groups), torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(5))
    torch.save(state, tmp_path / f"custom_mnist_80_{axis}_default_{groups[0]}.pth")
    model = load(tmp_path / f"custom_mnist_80_{axis}_default_{groups[0]}.pth")
    experiment = model.experiment
    loop, process, times = build_sampler(experiment, SamplingOptions("coursework"))
    denoiser = Counting(guided_denoiser(experiment, SamplingOptions("coursework")))
    x_0 = experiment.codec.encode(images)
    *_, ours = loop(denoiser, process, process.degrade(x_0, times[0]), times)
    plain = plain_restoration(state, images - 0.5, axis)
    assert plain.abs().max() > 0.6  # outside the range of images, to which other samplers keep their estimates
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)
    restored = model.restore(images, sampler="coursework")
    torch.testing.assert_close(restored, (plain + 0.5).clamp(0, 1), atol=1e-5, rtol=0)
    assert len(denoiser.calls) == build_sampler(experiment, SamplingOptions("coursework")).nfe == groups[0]


def test_a_cold_file_of_the_coursework_is_restored_by_what_was_measured_to_be_best(tmp_path):
    torch.save(cold_state("row", 7, 4), tmp_path / "custom_mnist_80_row_default_7.pth")
    model, images = load(tmp_path / "custom_mnist_80_row_default_7.pth"), torch.rand(2, 1, 28, 28)
    for each in (model, load(model.save(tmp_path / "again.pth"))):
        assert torch.equal(each.restore(images), each.restore(images, sampler="pinned", steps=28))
        assert not torch.allclose(each.restore(images), each.restore(images, sampler="alg2"))
        assert each.restore(images, steps=7).shape == images.shape


@pytest.mark.parametrize("preset, act", [("default", F.gelu), ("testing", F.selu)])
def test_a_bare_state_dict_samples_as_the_plain_implementation_does(tmp_path, preset, act):
    state = bare_state()
    torch.save(state, tmp_path / f"ddpm_mnist_100_{preset}.pth")
    experiment = load_weights(find_weights(f"ddpm_mnist_100_{preset}", [tmp_path]))
    assert experiment.config.hidden == HIDDEN and experiment.config.timesteps == T
    assert experiment.about["epoch"] == 100
    *_, ours = trajectory(experiment, torch.arange(3), SamplingOptions("ddpm", T, clip=False), seed=4)
    plain = plain_sampler(state, Noise(4, torch.arange(3)), act)
    assert 0.05 < plain.std() < 0.6  # neither all black nor all white: the comparison means something
    torch.testing.assert_close(ours, plain, atol=2e-4, rtol=0)


def test_the_file_name_must_tell_the_activation(tmp_path):
    torch.save(bare_state(), tmp_path / "mine.pth")
    with pytest.raises(UserError, match="ddpm_mnist_EPOCH_PRESET"):
        load_weights(tmp_path / "mine.pth")
    torch.save(bare_state(), tmp_path / "ddpm_mnist_3_defualt.pth")
    with pytest.raises(UserError, match="did you mean 'default'"):
        load_weights(tmp_path / "ddpm_mnist_3_defualt.pth")


WRAPPED = {
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 1.0}]}},
    "deep": lambda state: {"checkpoint": {"model_state_dict": state}, "args": {"lr": 1.0}},
    "module.": lambda state: {f"module.{key}": value for key, value in state.items()},
    "_orig_mod.": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "model.": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    "both": lambda state: {f"ddpm._orig_mod.module.{key}": value for key, value in state.items()},
    "inside": lambda state: {key.replace("gt.", "gt.module."): value for key, value in state.items()},
    "swa": lambda state: {"n_averaged": torch.tensor(3)} | {f"module.{key}": value for key, value in state.items()},
    "ema": lambda state: {"model": bare_state(seed=9), "model_ema": state},
    "ema in one": lambda state: (
        {f"net.{k}": v for k, v in bare_state(9).items()} | {f"ema.{k}": state[k] for k in state}
    ),
    "ema beside": lambda state: bare_state(9) | {f"ema_model.module.{key}": value for key, value in state.items()},
    "list": lambda state: [state, {"epoch": 3}],
    "deep list": lambda state: {"models": ({f"module.{key}": value for key, value in state.items()},)},
    "numpy": lambda state: {"model": state, "loss": np.float64(0.1), "epoch": np.int64(3), "losses": np.arange(3.0)},
    "parameters": lambda state: {key: torch.nn.Parameter(value) for key, value in state.items()},
    "double": lambda state: {key: value.double() for key, value in state.items()},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_a_wrapped_or_prefixed_state_dict_is_the_bare_one(tmp_path, how):
    state = bare_state()
    torch.save(state, tmp_path / "ddpm_mnist_100_light.pth")
    torch.save(WRAPPED[how](state), tmp_path / "ddpm_mnist.pth")
    bare, wrapped = load(tmp_path / "ddpm_mnist_100_light.pth"), load(tmp_path / "ddpm_mnist.pth", preset="light")
    assert wrapped.config == bare.config
    assert torch.equal(wrapped.sample(2, seed=4, steps=3), bare.sample(2, seed=4, steps=3))
    assert wrapped.experiment.about["holds"] == ("ema" if "ema" in how else "raw")


@pytest.mark.parametrize("together", [False, True])
def test_of_several_state_dicts_none_is_guessed(tmp_path, together):
    states = {"generator": bare_state(), "teacher": bare_state(1)}
    if together:
        states = {f"{name}.{key}": value for name, state in states.items() for key, value in state.items()}
    torch.save(states, tmp_path / "ddpm_mnist_3_default.pth")
    with pytest.raises(UserError, match="several state dicts, generator, teacher"):
        load_weights(tmp_path / "ddpm_mnist_3_default.pth")


def test_a_network_of_more_than_ten_blocks_keeps_their_order(tmp_path):
    torch.save(bare_state(hidden=tuple(range(1, 13))), tmp_path / "ddpm_mnist_3_default.pth")
    assert load_weights(tmp_path / "ddpm_mnist_3_default.pth").config.hidden == tuple(range(1, 13))


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("change", [torch.Tensor.to_sparse, lambda weight: weight.to(torch.complex64)])
def test_weights_that_are_no_plain_numbers_are_refused_in_one_sentence(tmp_path, change):
    state = bare_state()
    state["gt.blocks.0.net.0.bias"] = change(state["gt.blocks.0.net.0.bias"])
    torch.save(state, tmp_path / "ddpm_mnist_3_default.pth")
    with pytest.raises(UserError, match="'blocks.0.net.0.bias' is no plain table of numbers"):
        load_weights(tmp_path / "ddpm_mnist_3_default.pth")


@pytest.mark.parametrize("axis", ["row", "col"])
def test_a_cold_file_of_any_name_loads_with_its_preset(tmp_path, axis):
    state = {key: value for key, value in bare_state().items() if key.startswith("gt.")}
    state[{"row": "rows_t", "col": "cols_t"}[axis]] = torch.randperm(28).reshape(7, 4)
    torch.save(state, tmp_path / "mine.pth")
    config = load(tmp_path / "mine.pth", preset="default_7").config
    assert (config.process, config.axis, config.timesteps, config.hidden) == ("averaging", axis, 7, HIDDEN)


def test_a_preset_that_is_none_or_not_needed_is_refused(tmp_path):
    torch.save(bare_state(), tmp_path / "ddpm_mnist.pth")
    with pytest.raises(UserError, match="did you mean 'default'"):
        load(tmp_path / "ddpm_mnist.pth", preset="defualt")
    ours = load(tmp_path / "ddpm_mnist.pth", preset="testing").save(tmp_path / "ours.pth")
    with pytest.raises(UserError, match="says itself what it holds"):
        load(ours, preset="testing")
    assert load(ours).config.activation == "selu"


def test_commands_say_which_file_and_which_epoch_they_use(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(bare_state(), tmp_path / "ddpm_mnist_7_light.pth")
    torch.save(bare_state(), tmp_path / "ddpm_mnist.pth")
    words = ["generate", "--count", "1", "--steps", "1", "--device", "cpu", "--out", "x.npy", "--weights"]
    main([*words, "ddpm_mnist_7_light.pth"])
    main([*words, "ddpm_mnist.pth", "--preset", "light"])
    main([*words, "unet"])
    first, second, third = capsys.readouterr().out.splitlines()
    assert "of ddpm_mnist_7_light.pth (raw weights, epoch 7)" in first
    assert "of ddpm_mnist.pth (raw weights, epoch unknown)" in second
    assert f"of {shipped_weights() / 'unet.pth'} (ema weights, epoch 3" in third


def test_a_compiled_network_of_ours_is_saved_and_loaded(tmp_path):
    model = configure(hidden=(3, 3), timesteps=5)
    expected = model.sample(2)
    model.experiment.denoiser.network = torch.nn.DataParallel(model.experiment.denoiser.network)
    assert torch.equal(load(model.save(tmp_path / "w.pth")).sample(2), expected)


TABLES = {  # of the betas that other people have trained with
    "geometric": lambda: torch.logspace(-4, math.log10(0.02), 21, dtype=torch.float64),
    "another end": lambda: torch.linspace(1e-4, 0.2, 21, dtype=torch.float64),
    "long": lambda: torch.logspace(-5, math.log10(0.02), 3001, dtype=torch.float64),
}


@pytest.mark.parametrize("kind", TABLES)
def test_the_table_of_a_file_wins_and_is_kept(tmp_path, kind):
    beta = TABLES[kind]()
    state = bare_state() | {"beta_t": beta.float(), "alpha_t": (1 - beta).cumprod(0).float()}
    torch.save(state, tmp_path / "ddpm_mnist_3_default.pth")
    model = load(tmp_path / "ddpm_mnist_3_default.pth")
    again = load(load(model.save(tmp_path / "a.pth")).save(tmp_path / "b.pth", half=True))
    for each in (model, again):
        assert torch.equal(each.experiment.process.schedule.alpha_bar, state["alpha_t"].double())
        assert each.experiment.denoiser.schedule is each.experiment.process.schedule
    if kind != "long":
        *_, ours = trajectory(model.experiment, torch.arange(3), SamplingOptions("ddpm", clip=False, steps=20), seed=4)
        torch.testing.assert_close(ours, plain_sampler(state, Noise(4, torch.arange(3)), F.gelu), atol=2e-4, rtol=0)


def test_the_table_of_the_preset_is_not_stored_with_the_weights(tmp_path):
    torch.save(bare_state(), tmp_path / "ddpm_mnist_3_default.pth")
    assert not load(tmp_path / "ddpm_mnist_3_default.pth").experiment.process.state_dict()


SPOILT = {
    "rising": lambda table: table.flip(0),
    "constant": torch.ones_like,
    "one step up": lambda table: torch.cat([table[:5], table[3:4], table[6:]]),
    "above 1": lambda table: table + 0.5,
    "zero": lambda table: table - table[-1],
    "negative": lambda table: table - 0.9,
    "nan": lambda table: table * math.nan,
    "a column": lambda table: table[:, None],
    "one": lambda table: table[:1],
    "empty": lambda table: table[:0],
    "number": lambda table: 0.5,
    "a tensor of no dimension": lambda table: table[3],
    "list": lambda table: table.tolist(),
    "none": lambda table: None,
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_cannot_be_a_table_is_refused_in_one_sentence(tmp_path, how):
    state = bare_state()
    state["alpha_t"] = SPOILT[how](state["alpha_t"])
    torch.save(state, tmp_path / "ddpm_mnist_3_default.pth")
    with pytest.raises((UserError, Failure)) as caught:
        load(tmp_path / "ddpm_mnist_3_default.pth")
    assert "\n" not in str(caught.value)


DISORDER = {
    "repeated": lambda order: order.clamp(max=26),
    "negative": lambda order: order - 1,
    "missing": lambda order: order[:24],
    "beyond": lambda order: order + 1,
    "halves": lambda order: order / 2,
    "nan": lambda order: order * math.nan,
    "number": lambda order: 3,
}


@pytest.mark.parametrize("how", DISORDER)
@pytest.mark.parametrize("shape", [(28,), (7, 4)])
def test_what_is_no_order_of_lines_is_refused_in_one_sentence(tmp_path, how, shape):
    state = {key: value for key, value in bare_state().items() if key.startswith("gt.")}
    order = DISORDER[how](torch.randperm(28))
    state["rows_t"] = order.reshape(-1, *shape[1:]) if isinstance(order, torch.Tensor) else order
    torch.save(state, tmp_path / "custom_mnist_3_row_default_28.pth")
    with pytest.raises(UserError, match="'rows_t'") as caught:
        load(tmp_path / "custom_mnist_3_row_default_28.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name, value", [("schedule.alpha_bar", torch.ones(6)), ("schedule.alpha_bar", 0.5)])
def test_a_table_in_a_file_of_ours_is_checked_too(tmp_path, name, value):
    path = configure(hidden=(3, 3), timesteps=5).save(tmp_path / "w.pth")
    files.save(path, files.load(path) | {"process": {name: value}})
    with pytest.raises(UserError, match="has to be 6 numbers that fall"):
        load(path)


def test_an_order_in_a_file_of_ours_is_checked_too(tmp_path):
    path = configure(process="averaging", target="x_0", timesteps=7, hidden=(3, 3)).save(tmp_path / "w.pth")
    content = files.load(path)
    content["process"]["rank"][3] = content["process"]["rank"][4] = 1
    content["process"]["rank"][5] = 99
    with pytest.raises(UserError, match="order of the lines"):
        load(files.save(path, content))


def test_a_state_dict_with_a_missing_layer_is_refused_in_one_sentence(tmp_path):
    state = bare_state()
    del state["gt.time_embed.6.bias"]
    torch.save(state, tmp_path / "ddpm_mnist_3_default.pth")
    with pytest.raises(UserError, match="do not fit.*time_embed.6.bias") as caught:
        load_weights(tmp_path / "ddpm_mnist_3_default.pth")
    assert "\n" not in str(caught.value)
