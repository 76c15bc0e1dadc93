"""`train --stream`: the same weights to the bit as from files, whoever is killed on the way."""

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
from in_process import DATA, ROOT, Death, run
from stream_server import serving
from test_train import EIGHT, QUICK, TINY, same_run, state

from diffusion import files
from diffusion.commands import train
from diffusion.data.datasets import load
from diffusion.laboratory import run as laboratory
from diffusion.training.trainer import Trainer

SMALL = {split: load("MNIST", split, ROOT / "data").whole(400) for split in ("train", "test")}
SERVED = {"MNIST": SMALL}
WORDS = [*TINY, *QUICK, *EIGHT, "--save-every", "0"]


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    """The files hold 400 digits of each split, as the servers do; curves take longer than all the rest."""
    monkeypatch.setattr(laboratory, "load", lambda name, split, root, device, samples=None: SMALL[split].to(device))
    monkeypatch.setattr(train, "draw_curves", lambda *_: None)


def trained(out, *words, code=0):
    done = run("src", "train", *WORDS, "--out", out, *words)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Eight steps from memory, unbroken."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laboratory, "load", lambda name, split, root, device, samples=None: SMALL[split].to(device))
        patch.setattr(train, "draw_curves", lambda *_: None)
        trained(out)
    return out


def dying(patch, steps):
    """The process dies before it takes another step than so many."""
    update, taken = Trainer.update, []

    def mortal(self, *args):
        if len(taken) == steps:
            raise Death
        taken.append(1)
        return update(self, *args)

    patch.setattr(Trainer, "update", mortal)


def test_from_a_stream_or_from_files_is_the_same(finished, tmp_path):
    with serving(SERVED) as (address, server):
        trained(tmp_path, "--stream", address)
        assert server.samples >= 8 * 16
    same_run(state(finished), state(tmp_path))


@pytest.mark.parametrize("first", ["files", "stream"])
def test_client_and_server_killed_and_started_again_reach_the_same_weights(finished, tmp_path, monkeypatch, first):
    with serving(SERVED) as (address, _), monkeypatch.context() as patch, pytest.raises(Death):
        dying(patch, random.randint(1, 7))
        trained(tmp_path, *(["--stream", address] if first == "stream" else []))
    assert 0 < len(state(tmp_path)["trainer"]["losses"]) < 8
    with serving(SERVED) as (address, _):  # another server, at another port
        trained(tmp_path, "--stream", address, "--resume")
    same_run(state(finished), state(tmp_path))


def at_step(patch, number, happens):
    """Have something happen before step `number`, when only what it trains on has come."""
    update = Trainer.update

    def watched(self, *args):
        if self.step == number - 1:
            happens()
        return update(self, *args)

    patch.setattr("diffusion.streaming.protocol.IN_FLIGHT", 1)
    patch.setattr(Trainer, "update", watched)


def test_a_server_that_goes_and_comes_in_the_middle_of_a_training_changes_nothing(finished, tmp_path, monkeypatch):
    with ExitStack() as server:
        address, _ = server.enter_context(serving(SERVED))

        def restart():
            server.close()
            again = serving(SERVED, port=int(address.rpartition(":")[2]))
            threading.Timer(0.5, server.enter_context, [again]).start()

        at_step(monkeypatch, random.randint(2, 7), restart)
        said = trained(tmp_path, "--stream", address).stderr
    assert f"the stream {address} is lost" in said and f"the stream {address} is back" in said
    same_run(state(finished), state(tmp_path))


def test_a_signal_ends_a_training_that_waits_for_its_server(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, ExitStack() as server:
        address, _ = server.enter_context(serving(SERVED))

        def kill():
            server.close()
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()

        at_step(patch, 4, kill)
        said = trained(tmp_path, "--stream", address, code=128 + signal.SIGTERM).stdout
    assert "stopped by SIGTERM" in said and len(state(tmp_path)["trainer"]["losses"]) == 4
    with serving(SERVED) as (address, _):
        trained(tmp_path, "--stream", address, "--resume")
    same_run(state(finished), state(tmp_path))


def test_a_full_disk_costs_nothing_that_was_saved(finished, tmp_path, monkeypatch):
    with serving(SERVED) as (address, _):
        with monkeypatch.context() as patch:

            def full(*_):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            at_step(patch, 5, lambda: patch.setattr(files, "write_atomically", full))
            assert "No space left" in trained(tmp_path, "--stream", address, code=1).stderr
        assert len(state(tmp_path)["trainer"]["losses"]) == 4
        trained(tmp_path, "--stream", address, "--resume")
    same_run(state(finished), state(tmp_path))


def test_data_that_changed_are_refused_and_nothing_is_written(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    train_split = SMALL["train"]
    other = {"MNIST": SMALL | {"train": replace(train_split, images=train_split.images.flip(0))}}
    there = lambda: {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"}
    before = there()
    with serving(other) as (address, _):
        said = trained(tmp_path, "--stream", address, "--resume", code=2).stderr
    assert "MNIST is not what the run" in said and "its images changed" in said
    assert there() == before


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--stream", "127.0.0.1:8765"], 2, "a stream is ws://HOST:PORT"),
        (["--stream", "{address}", "--dataset", "FashionMNIST"], 2, "did you mean 'MNIST'"),
        (["--stream", "{address}", "--network.classes=7"], 2, "classes must be that or 0"),
        (["--stream", "ws://127.0.0.1:9"], 1, "cannot be had"),
    ],
)
def test_a_stream_that_cannot_be_trained_on_is_one_sentence(tmp_path, monkeypatch, words, code, says):
    monkeypatch.setattr("diffusion.streaming.client.FIRST", 0.1)
    with serving(SERVED) as (address, _):
        said = trained(tmp_path, *(word.format(address=address) for word in words), code=code).stderr
    assert says in said and "Traceback" not in said and not (tmp_path / "runs").exists()


def test_models_by_data_set_and_kind_take_a_stream_too(tmp_path):
    words = ["--dataset", "MNIST", "--model", "autoencoder", "--steps", 2, "--data.held_out=40", "--batch-size", 16]
    words += ["--device", "cpu", *DATA]
    with serving(SERVED) as (address, server):
        for out, more in (("files", []), ("stream", ["--stream", address])):
            done = run("src", "train", *words, "--out", tmp_path / out, *more)
            assert done.returncode == 0, done.stderr
        assert server.samples >= 800
    same_run(*(state(tmp_path / out, "MNIST_autoencoder") for out in ("files", "stream")))


def test_images_of_another_shape_than_is_trained_are_refused(tmp_path):
    larger = {split: replace(data, images=data.images.repeat(1, 3, 1, 1)) for split, data in SMALL.items()}
    with serving({"MNIST": larger}) as (address, _):
        assert "images of (3, 28, 28)" in trained(tmp_path, "--stream", address, code=2).stderr


# --- Real processes ---


def start(*words, env=None):
    """A process of this checkout, in a group of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(env or {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*map(str, words)], cwd=ROOT, env=env, start_new_session=True, **pipes)


def served(port=0):
    """`python src stream` in a process, and its address."""
    child = start(sys.executable, "src", "stream", "--dataset", "MNIST", "--port", port, *DATA)
    line = next(line for line in child.stdout if "serving at" in line)
    return child, re.search(r"ws://[\d.:]+", line)[0]


def kill(child):
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "processes"), [("stream", 1), ("stream", 2), ("shards", 2)])
def test_processes_killed_at_random_reach_what_an_unbroken_run_reaches(tmp_path, kind, processes):
    """The training, the server, or both, some times in a row; then the training is left to end.

    From a stream that is what a run from files reaches; of shards the order is another, and so are the weights.
    """
    words = [*TINY, *QUICK, "--steps", "60", "--train.sheet_steps=[60]", "--train.sheet_every=60", "--save-every", "0"]
    python, out = [sys.executable], tmp_path / "broken"
    if processes > 1:
        python = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    command = lambda out, *more: [*python, "src", "train", *words, "--out", out, *more]
    source, server, port = ["--stream", tmp_path / "files"], None, 0
    if kind == "shards":
        from diffusion.streaming import shards  # takes two seconds, which other tests need not spend

        list(shards.write(SMALL, tmp_path / "files/MNIST", 6))
        done(start(*command(tmp_path / "whole", *source)))
    else:
        done(start(*command(tmp_path / "whole")))
        server, address = served()
        source, port = ["--stream", address], address.rpartition(":")[2]
    reached = lambda: len(state(out)["trainer"]["losses"]) if (out / "runs/unet_fast/state.pt").exists() else 0
    deaths, child = 0, start(*command(out, *source))
    try:
        for who in ["client", "server", "both", "client"] if server else ["client"] * 3:
            before, deadline = reached(), time.monotonic() + 100
            while reached() < before + 3 and child.poll() is None and time.monotonic() < deadline:
                time.sleep(random.uniform(0, 0.1))
            if child.poll() is not None:
                break
            deaths += 1
            if who != "server":
                kill(child)
            if who != "client":
                kill(server)
                server, _ = served(port)
            if who != "server":
                child = start(*command(out, *source, "--resume"))
        done(child)
    finally:
        for each in filter(None, (child, server)):
            if each.poll() is None:
                kill(each)
    assert deaths >= 2
    same_run(state(tmp_path / "whole"), state(out))


def done(child):
    try:
        said = child.communicate(timeout=250)[0]
    finally:
        if child.poll() is None:
            kill(child)
    assert child.returncode == 0, said
