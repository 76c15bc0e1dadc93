"""A network is compiled once that pays, answers as before meanwhile and afterwards, and is left alone otherwise."""

import base64
import io
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from server import running
from torch import nn

from diffusion import configure
from diffusion.method.denoiser import Denoiser
from diffusion.serving import compiling
from diffusion.serving.catalogue import load_catalogue
from diffusion.serving.compiling import TRIALS, Compiling, State, compile_when_it_pays
from diffusion.serving.library import Compilation, library_path

CPU = torch.device("cpu")
SIZES = (1, 2, 7, 16, 64)
NEAR = 1.001 / 255
GENERATIONS = "/v1/images/generations"
ORDER = {"model": "tiny", "prompt": "three", "seed": 1, "n": 3, "steps": 5, "response_format": "b64_json"}


class Clock:
    """Seconds that nothing but networks take."""

    def __init__(self):
        self.now = 0.0

    def thread_time(self):
        return self.now


CLOCK = Clock()


class Slow(nn.Module):
    """x / 2, in a second."""

    def __init__(self):
        super().__init__()
        self.factor, self.calls = nn.Parameter(torch.tensor(0.5)), 0

    def forward(self, x, t, cond=None):
        CLOCK.now, self.calls = CLOCK.now + 1, self.calls + 1
        return x * self.factor


def quick(x, t):
    CLOCK.now += 0.5
    return x / 2


def slower(x, t):
    CLOCK.now += 1.5
    return x / 2


class Compiler:
    """Stands for the other process: it is over once `done`, and then `failure` says how it went."""

    def __init__(self):
        self.started, self.stopped, self.done, self.failure = 0, False, False, None

    def __call__(self, path: Path, *order):
        self.started, self.path = self.started + 1, path
        return self

    @property
    def running(self):
        if self.done and not self.failure:
            self.path.touch()
        return not self.done

    def stop(self):
        self.stopped = True


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A compiler whose price is five calls, and whose libraries take half as long."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    stand_in = Compiler()
    monkeypatch.setattr(compiling, "PRICE", 5)
    monkeypatch.setattr(compiling, "time", CLOCK)
    monkeypatch.setattr(compiling, "Compilation", stand_in)
    monkeypatch.setattr(compiling, "Library", lambda path: quick)
    return stand_in


@torch.no_grad()
def ask(one: Compiling, calls: int = 1) -> None:
    for _ in range(calls):
        x = torch.randn(3, 1, 4, 4)
        torch.testing.assert_close(one(x, torch.ones(()), None), x / 2)


def test_it_is_compiled_when_its_calls_have_cost_as_much_and_taken_when_it_has_answered_some(compiler):
    one = Compiling("slow", Denoiser(Slow()))
    ask(one, 4)
    assert compiler.started == 0 and one.state is State.EAGER
    ask(one, 20)
    assert compiler.started == 1 and one.state is State.COMPILING and one.library is None
    compiler.done = True
    ask(one, TRIALS)
    assert one.state is State.COMPILING
    ask(one, 1)
    assert one.state is State.COMPILED and one.denoiser.network.calls == 4 + 20 + 2 * TRIALS + 1
    ask(one, 10)
    assert compiler.started == 1 and one.denoiser.network.calls == 4 + 20 + 2 * TRIALS + 1


def test_what_is_in_the_cache_is_tried_at_once(compiler):
    one = Compiling("slow", Denoiser(Slow()))
    library_path(one.denoiser.network, one._inputs(torch.zeros(1, 1, 4, 4), torch.ones(1), None), False).touch()
    ask(one, 1 + TRIALS)
    assert one.state is State.COMPILED and compiler.started == 0


@pytest.mark.parametrize(
    ("library", "why"),
    [
        (lambda x, t: x / 2 + 1e-3, "differs by"),
        (lambda x, t: x * torch.nan, "differs by nan"),
        (slower, "slow is eager: compiled, its calls take 150 %"),
        (lambda x, t: 1 / 0, "division by zero"),
    ],
)
def test_one_that_answers_otherwise_or_later_or_not_at_all_is_not_taken(compiler, monkeypatch, caplog, library, why):
    monkeypatch.setattr(compiling, "Library", lambda path: library)
    compiler.done, one = True, Compiling("slow", Denoiser(Slow()))
    with caplog.at_level(logging.INFO, "diffusion.serving"):
        ask(one, 30)
    assert one.state is State.EAGER and one.library is None and compiler.started == 1 and why in caplog.text
    assert compiler.path.exists() == (library is slower)  # what is wrong is thrown away


def test_a_compiler_that_fails_is_heard_once(compiler, caplog):
    compiler.done, compiler.failure, one = True, "CppCompileError: no space", Compiling("slow", Denoiser(Slow()))
    with caplog.at_level(logging.INFO, "diffusion.serving"):
        ask(one, 20)
    assert caplog.text.count("slow stays eager: CppCompileError: no space") == 1 and compiler.started == 1


def test_the_other_process_ends_with_the_server(compiler):
    one = Compiling("slow", Denoiser(Slow()))
    one.close()
    ask(one, 10)
    one.close()
    assert compiler.stopped


def test_a_compilation_that_is_stopped_leaves_nothing(tmp_path):
    compilation = Compilation(tmp_path / "library.so", nn.Conv2d(1, 1, 3), (torch.zeros(1, 1, 8, 8),), False)
    assert compilation.running and compilation.folder.parent == tmp_path
    compilation.stop()
    assert not compilation.running and not list(tmp_path.iterdir())
    with pytest.raises(ProcessLookupError):
        os.killpg(compilation.process.pid, 0)


def test_where_a_library_lies_depends_on_weights_and_threads_and_not_on_the_batch(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network, inputs = Slow(), lambda size: (torch.zeros(size, 1, 4, 4), torch.zeros(size))
    first = library_path(network, inputs(1), False)
    assert first.parent == tmp_path and first == library_path(network, inputs(5), False)
    others = [library_path(network, inputs(1), True), library_path(network, (*inputs(1), torch.zeros(1)), False)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    others.append(library_path(network, inputs(1), False))
    monkeypatch.undo()
    nn.init.ones_(network.factor)
    assert len({path.name for path in (first, *others, library_path(network, inputs(1), False))}) == 5


def test_networks_in_bfloat16_are_compiled_on_demand_alone(monkeypatch, caplog):
    monkeypatch.setattr("diffusion.serving.compiling.computes_bf16", lambda device: True)
    monkeypatch.setattr("shutil.which", lambda name: name)
    models = list(load_catalogue(["unet", "cold_unet row"], CPU))
    names = lambda choice: {one.name for one in compile_when_it_pays(models, choice).values()}
    assert (names("auto"), names("bf16"), names("no")) == ({"cold_unet row"}, {"unet", "cold_unet row"}, set())
    monkeypatch.setattr("shutil.which", lambda name: None)
    with caplog.at_level(logging.INFO, "diffusion.serving"):
        assert names("auto") == set() and "not compiled: there is no" in caplog.text
    caplog.clear()
    assert names("no") == set() and not caplog.text


def images(data) -> torch.Tensor:
    """What a reply holds: (n, H, W) in [0, 1]."""
    pictures = [Image.open(io.BytesIO(base64.b64decode(each["b64_json"]))) for each in data]
    return torch.stack([torch.from_numpy(np.asarray(picture, np.float32) / 255) for picture in pictures])


@pytest.mark.slow
def test_a_server_compiles_while_it_answers_and_draws_the_same_images(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(compiling, "PRICE", 0.0)
    model = configure(
        network="unet", hidden=(8, 8), classes=10, schedule="rectified", target="velocity", precision="fp32"
    )
    torch.manual_seed(0)
    for parameter in model.experiment.network.parameters():  # untrained, its answers would be 0
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    file = model.save(tmp_path / "tiny.pth")
    draw = lambda client: images(client.post(GENERATIONS, json=ORDER).raise_for_status().json()["data"])
    with running(weights=(str(file),), compile="auto") as client:
        (one,) = client.engine.compiling.values()
        before, waits = draw(client), []
        until = time.monotonic() + 240
        while one.state is not State.COMPILED and time.monotonic() < until:
            began = time.monotonic()
            drawn = draw(client)
            waits.append(time.monotonic() - began)
            torch.testing.assert_close(drawn, before, atol=NEAR, rtol=0)
            time.sleep(0.2)
        assert one.state is State.COMPILED and max(waits) < 5
        torch.testing.assert_close(draw(client), before, atol=NEAR, rtol=0)
        assert "diffusion_compiled_networks 1.0" in client.get("/metrics").text
        for size in SIZES:
            x, t = torch.randn(size, 1, 28, 28), torch.rand(size)
            for cond in (None, torch.arange(size) % 10):
                with torch.no_grad():
                    expected = one.denoiser.predict(x, t, cond)
                torch.testing.assert_close(one(x, t, cond), expected, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(compiling, "Compilation", None)  # the next process finds what this one compiled
    with running(weights=(str(file),), compile="auto") as client:
        (one,) = client.engine.compiling.values()
        for _ in range(1 + TRIALS):
            torch.testing.assert_close(draw(client), before, atol=NEAR, rtol=0)
        assert one.state is State.COMPILED
