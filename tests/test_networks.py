"""Parts of the networks against plain formulas."""

import math

import pytest
import torch
from torch.nn import functional as F

from diffusion.method.denoiser import Denoiser
from diffusion.networks.cnn import CNN, SELU, LayerNorm
from diffusion.networks.text import TextUNet
from diffusion.networks.unet import Attention, GroupNorm, UNet


def test_selu_and_its_gradient_are_torchs():
    x = torch.linspace(-8, 4, 2001, dtype=torch.float32).requires_grad_()
    y = x.detach().clone().requires_grad_()
    ours, theirs = SELU()(x), F.selu(y)
    torch.testing.assert_close(ours, theirs, atol=3e-7, rtol=1e-6)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, atol=2e-6, rtol=1e-5)
    assert SELU()(x.bfloat16()).dtype == torch.bfloat16


def test_attention_is_the_textbooks():
    torch.manual_seed(0)
    layer, x = Attention(8, heads=2), torch.randn(2, 8, 3, 3)
    torch.nn.init.normal_(layer.answer.weight)
    q, k, v = layer.ask(layer.norm(x)).flatten(2).chunk(3, dim=1)  # (B, C, N) each
    out = torch.zeros(2, 8, 9)
    for b in range(2):
        for h in (slice(0, 4), slice(4, 8)):
            weights = (q[b, h].T @ k[b, h] / math.sqrt(4)).softmax(1)  # (N, N): of each query over all keys
            out[b, h] = (weights @ v[b, h].T).T
    torch.testing.assert_close(layer(x), x + layer.answer(out.reshape(2, 8, 3, 3)), atol=1e-5, rtol=1e-5)


def test_the_cnn_adds_the_time_once_after_the_first_block():
    torch.manual_seed(0)
    network, x = CNN((1, 8, 8), (4, 4)), torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        for parameter in network.time_embed[6].parameters():
            parameter.zero_()
    late, early = network(x, torch.ones(3)), network(x, torch.zeros(3))
    assert torch.equal(late, early)  # without its last layer the time says nothing
    plain = network.blocks[2](network.blocks[1](network.blocks[0](x)))
    torch.testing.assert_close(late, plain)


def test_the_unet_is_the_same_function_in_any_layout_and_float64():
    torch.manual_seed(0)
    network, x, t = UNet((1, 28, 28), (8, 16), classes=3), torch.randn(5, 1, 28, 28), torch.rand(5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    labels = torch.tensor([0, 1, 2, 3, 0])
    plain, turned = network(x, t, labels), network(x.contiguous(memory_format=torch.channels_last), t, labels)
    torch.testing.assert_close(plain, turned)
    torch.testing.assert_close(plain.double(), network.double()(x.double(), t, labels), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("units", [False, True])
def test_bf16_is_used_only_where_the_processor_has_it(monkeypatch, units):
    monkeypatch.setattr("diffusion.method.denoiser.computes_bf16", lambda device: units)
    torch.manual_seed(0)
    network, x, t = CNN((1, 8, 8), (4, 4)), torch.randn(3, 1, 8, 8), torch.rand(3)
    answer, exact = Denoiser(network, bf16=True)(x, t), Denoiser(network)(x, t)
    assert answer.dtype == torch.float32
    assert torch.equal(answer, exact) is not units
    torch.testing.assert_close(answer, exact, atol=0.05, rtol=0.05)


def test_the_layer_norm_is_torchs_in_either_layout():
    torch.manual_seed(0)
    ours, torchs = LayerNorm((4, 6, 5)), torch.nn.LayerNorm((4, 6, 5))
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4, 6, 5)
    turned = x.contiguous(memory_format=torch.channels_last)
    answers = ours(turned), torchs(x)
    assert answers[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(*answers)
    for layer, answer in zip((ours, torchs), answers):
        answer.square().sum().backward()
        layer.found = [parameter.grad for parameter in layer.parameters()]
    torch.testing.assert_close(ours.found, torchs.found)


@torch.no_grad()
@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_group_norm_of_sampling_in_bf16_is_torchs(layout, spread):
    torch.manual_seed(0)
    norm = GroupNorm(4, 16)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (3 + spread * torch.randn(5, 16, 7, 7)).bfloat16().contiguous(memory_format=layout)
    scale, shift = torch.randn(2, 5, 16).bfloat16()
    ours = norm(x, scale, shift), norm(x)
    plain = F.group_norm(x.double(), 4, norm.weight.double(), norm.bias.double())
    scaled = plain * (1 + scale.double()[:, :, None, None]) + shift.double()[:, :, None, None]
    torch.testing.assert_close([each.double() for each in ours], [scaled, plain], atol=1e-3, rtol=1e-4)


def lively(network):
    """Weights that say something: an untrained network's answer is 0."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return network


@pytest.mark.parametrize("network", [UNet((1, 28, 28), (8, 16), classes=3), CNN((1, 28, 28), (4, 8, 4))])
def test_a_network_answers_the_same_to_the_bit_whether_gradients_are_wanted(network):
    x, t = torch.randn(5, 1, 28, 28), torch.rand(5)
    answer = lively(network)(x, t)
    with torch.no_grad():
        assert torch.equal(network(x, t), answer)


@torch.no_grad()
@pytest.mark.parametrize(
    "network", [UNet((1, 28, 28), (8, 16)), TextUNet((1, 28, 28), (8, 16), 5, 3), CNN((1, 28, 28))]
)
def test_weights_cast_once_answer_as_those_cast_in_every_call_to_the_bit(monkeypatch, network):
    monkeypatch.setattr("diffusion.method.denoiser.computes_bf16", lambda device: True)
    x, t, exact = torch.randn(8, 1, 28, 28), torch.rand(8), Denoiser(lively(network))
    assert exact.for_sampling() is exact
    cast = Denoiser(network, bf16=True)
    kept = cast.for_sampling()
    assert torch.bfloat16 in {parameter.dtype for parameter in kept.parameters()}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}  # those that train
    assert torch.equal(kept(x, t), cast(x, t))
    assert 0 < (kept(x, t) - exact(x, t)).square().mean().sqrt() / exact(x, t).std() < 0.03
