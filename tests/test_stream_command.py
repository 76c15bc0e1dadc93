"""`python src stream` as a person runs it."""

import os
import signal
import socket
import threading

import pytest
from in_process import DATA, files_in, run
from stream_server import numbered

from diffusion.commands import stream
from diffusion.streaming import shards
from diffusion.streaming.client import Client
from diffusion.streaming.server import Server


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Every data set has 60 samples to train on, if nobody says how many, and 20 to test with."""
    sizes = {"train": 60, "test": 20}
    monkeypatch.setattr(stream, "load", lambda name, split, root, samples=None: numbered(samples or sizes[split], name))


def said(*words, code=0):
    done = run("src", "stream", *words, *DATA)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_it_serves_until_ctrl_c_and_says_what(monkeypatch):
    offers, serve = [], Server.run

    def visited(self, host, port, ready, stop):
        def visit(number):
            ready(number)
            threading.Thread(target=ask, args=(number,)).start()

        return serve(self, host, port, visit, stop)

    def ask(number):
        client = Client(f"ws://127.0.0.1:{number}")
        offers.append({name: {split: about.size for split, about in of.items()} for name, of in client.offer.items()})
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Server, "run", visited)
    text = said("--dataset", "MNIST", "digits", "--samples", 70, "--port", 0)
    assert offers == [{name: {"train": 70, "test": 20} for name in ("MNIST", "digits")}]
    assert "MNIST: 70 train, 20 test; fingerprint" in text and "serving at ws://127.0.0.1:" in text
    assert "served 0 samples" in text


def test_it_writes_shards_once(tmp_path):
    text = said("--dataset", "digits", "--write-shards", tmp_path / "out", "--shards", 3)
    assert "60 train, 20 test in 3 shards each" in text and f"--stream {tmp_path / 'out'}" in text
    names = [f"{split}-{number:05d}.tar" for split in ("train", "test") for number in range(3)]
    assert files_in(tmp_path / "out") == {f"digits/{name}" for name in [*names, "shards.json"]}
    before = {path: path.read_bytes() for path in (tmp_path / "out/digits").iterdir()}
    assert "is there already" in said("--dataset", "digits", "--write-shards", tmp_path / "out", code=2)
    assert {path: path.read_bytes() for path in (tmp_path / "out/digits").iterdir()} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_writes_shards_leaves_nothing(tmp_path, monkeypatch, number):
    written, write_shard = [], shards._write_shard

    def killed(path, *args):
        written.append(path)
        if len(written) == 3:
            os.kill(os.getpid(), number)
        return write_shard(path, *args)

    monkeypatch.setattr(shards, "_write_shard", killed)
    said("--dataset", "digits", "--write-shards", tmp_path / "out", "--shards", 3, code=128 + number)
    assert len(written) == 3 and not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--dataset", "digit"], "did you mean 'digits'"),
        (["--host", "0.0.0.0"], "lets other machines in: give a --token"),
        (["--host", "192.0.2.1"], "lets other machines in"),
        (["--token", "1234567"], "at least 8 characters"),
        (["--port", "70000"], "not an integer from 0 to 65535"),
        (["--samples", "0"], "not an integer of at least 1"),
        (["--write-shards", "{tmp}/out", "--shards", "61"], "that many shards at most, not 61"),
        (["--wite-shards", "out"], "did you mean '--write-shards'"),
    ],
)
def test_wrong_input_is_one_sentence_exit_code_2_and_nothing_written(tmp_path, words, says):
    text = said(*(word.format(tmp=tmp_path) for word in words), code=2)
    assert says in text and text.strip().count("\n") == 0 and "Traceback" not in text
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "nothing can be served at 127.0.0.1:" in said("--port", taken.getsockname()[1], code=2)


def test_the_token_may_come_from_the_environment(monkeypatch):
    tokens = []

    def see(served, *, token, **_):
        tokens.append(token)
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "Server", see)
    monkeypatch.setenv("STREAM_TOKEN", "from the environment")
    run("src", "stream", *DATA)
    run("src", "stream", "--token", "from the command line", *DATA)
    assert tokens == ["from the environment", "from the command line"]
