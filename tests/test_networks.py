"""Parts of the networks against plain formulas."""

import math

import pytest
import torch
from torch.nn import functional as F

from diffusion.method.denoiser import Denoiser
from diffusion.networks.cnn import CNN, SELU
from diffusion.networks.unet import Attention, UNet


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
