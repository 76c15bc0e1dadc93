"""The coursework's bare state dicts, against a plain rewriting of the coursework's model and sampler, made for it."""

import math

import pytest
import torch
from torch.nn import functional as F

from diffusion.api.generation import trajectory
from diffusion.errors import UserError
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.weights import find_weights, load_weights
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


def test_a_state_dict_with_a_missing_layer_is_refused_in_one_sentence(tmp_path):
    state = bare_state()
    del state["gt.time_embed.6.bias"]
    torch.save(state, tmp_path / "ddpm_mnist_3_default.pth")
    with pytest.raises(UserError, match="do not fit.*time_embed.6.bias") as caught:
        load_weights(tmp_path / "ddpm_mnist_3_default.pth")
    assert "\n" not in str(caught.value)
