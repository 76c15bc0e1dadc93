"""Part 1 as a person runs it, on real data; killed, stopped and resumed."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from accelerate.commands import launch
from in_process import DATA, ROOT, Death, files_in, run
from PIL import Image

from diffusion import files
from diffusion.laboratory import options, show
from diffusion.laboratory.stopping import Stopped
from diffusion.training.trainer import Trainer

QUICK = ["--eval-samples", "16", "--eval-seeds", "2", "--steps", "2", *DATA]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
PART_1, RUN = "src/part_1.py", "runs/DDPM_light"


def training(out, *words):
    """Arguments of a small but real run."""
    return ["1", "light", "--out", out, *QUICK, "--batch-size", "32", *words]


def process(*words):
    """The command of a process of its own."""
    return [sys.executable, *map(str, words)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 12 steps, unbroken: what every other way to 12 steps must reach."""
    out = tmp_path_factory.mktemp("finished")
    done = run(PART_1, *training(out, "--limit-steps", 12))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.fixture(autouse=True)
def without_curves(monkeypatch):
    """In all runs but the one above: drawing them takes longer than all the rest."""
    monkeypatch.setattr(show, "draw_curves", lambda *_: None)


def state(out, name="DDPM_light"):
    return files.load(out / "runs" / name / "state.pt")


def same_training(a, b):
    """Weights, average, optimizer, losses and scores to the bit; wall times differ, of course."""
    assert torch.equal(a["trainer"]["losses"], b["trainer"]["losses"])
    for part in ("denoiser", "ema"):
        for key, value in a["trainer"][part].items():
            assert torch.equal(value, b["trainer"][part][key]), key
    for key, value in a["trainer"]["optimizer"]["state"].items():
        for name, moment in value.items():
            assert torch.equal(moment, b["trainer"]["optimizer"]["state"][key][name])
    timeless = lambda history: [{k: v for k, v in line.items() if k != "seconds"} for line in history]
    assert timeless(a["history"]) == timeless(b["history"])


def test_a_run_writes_what_the_coursework_writes_and_says_where(finished):
    out, said = finished
    assert files_in(out) == {
        *(f"Plots/{name}_for_DDPM_light.png" for name in ("losses", "fid", "incept_score")),
        *(f"Plots/ddpm_degraded_sample_{t}.png" for t in (0, 250, 500, 750, 1000)),
        *(f"contents/ddpm_{kind}_{epoch:04d}_light.png" for kind in ("sample", "degraded") for epoch in (0, 1)),
        *(f"runs/DDPM_light/ddpm_mnist_{epoch}_light.pth" for epoch in (0, 1)),
        *(f"runs/DDPM_light/{name}" for name in ("state.pt", "metrics.jsonl", "config.json")),
    }
    for word in ("FID", "IS", "KID", "floor", "N = 16", "2 seeds", "sha256", "too few", "12 training steps", "Plots/"):
        assert word in said, word
    assert Image.open(out / "contents/ddpm_sample_0001_light.png").size == (468, 468)  # 4 × 4 of 28 + lines, times 4


def test_metrics_and_config_are_written_for_machines(finished):
    out, _ = finished
    lines = [json.loads(line) for line in (out / "runs/DDPM_light/metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(0, 0), (1, 12)]
    assert lines[0]["loss"] is None and 0 < lines[1]["loss"] < 2
    assert lines[1]["fid"] > 0 and lines[1]["n"] == 16 and len(lines[1]["sha256"]) == 64
    config = json.loads((out / "runs/DDPM_light/config.json").read_text())
    assert config["hidden"] == [16, 64, 16] and config["batch_size"] == 32 and config["seed"] == 0


def test_generate_draws_the_same_digits_in_any_batch_as_array_and_as_picture(finished, tmp_path):
    out, _ = finished
    weights = out / RUN / "ddpm_mnist_1_light.pth"
    draw = lambda *to: run("src", "generate", "--weights", weights, "--count", 9, "--seed", 3, "--steps", 3, *to)
    for name, batch in (("a", 9), ("b", 4)):
        done = draw("--batch-size", batch, "--out", tmp_path / f"{name}.npy")
        assert done.returncode == 0, done.stderr
        assert "ema weights, epoch 1" in done.stdout
    a, b = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert a.shape == (9, 1, 28, 28) and a.dtype == np.float32 and a.min() >= 0 and a.max() <= 1
    np.testing.assert_allclose(a, b, atol=2e-3)  # the noise is equal; bf16 convolutions round by batch shape
    assert a.std() > 0.05 and abs(a[0] - a[1]).max() > 0.1
    draw("--out", tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.png"))[6::4, 6::4]  # back from four screen pixels to one
    np.testing.assert_array_equal(pixels[:28, :28], (a[0, 0] * 255).round())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kill_9_at_random_moments_then_resume_reaches_the_unbroken_run(finished, tmp_path, seed):
    """--save-every 0 saves after every step, so that many kills fall inside a save.

    Among the fast tests one process of the same engine is killed, in test_train.py, and the next test dies by itself.
    """
    words = training(tmp_path, "--limit-steps", 12, "--save-every", 0)
    saved, kills, rng = tmp_path / RUN / "state.pt", 0, random.Random(seed)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for _ in range(4):
        resume = ["--resume"] if saved.exists() else []
        child = subprocess.Popen(process(PART_1, *words, *resume), cwd=ROOT, env=ENV, **quiet)
        began = saved.stat().st_mtime_ns if saved.exists() else 0
        while child.poll() is None and not (saved.exists() and saved.stat().st_mtime_ns > began):
            time.sleep(0.01)  # until the training proper has begun
        time.sleep(rng.uniform(0, 1.0))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        state(tmp_path)  # what is there always loads
    done = subprocess.run(process(PART_1, *words, "--resume"), cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert kills >= 2, "the kills came too late to test anything"
    same_training(state(finished[0]), state(tmp_path))
    assert not list((tmp_path / RUN).glob(".*"))  # what a killed save left was cleared away


def test_a_death_between_two_files_then_resume_reaches_the_unbroken_run(finished, tmp_path, monkeypatch):
    """After the state but before its metrics, in the middle of an epoch; after its weights but before the state."""
    words, write = training(tmp_path, "--limit-steps", 12, "--save-every", 0), files.write_atomically
    for name, writes, steps in (("metrics.jsonl", 7, 4), ("ddpm_mnist_1_light.pth", 1, 12)):
        left = [writes]

        def dying(path, fill, name=name, left=left):
            left[0] -= path.name == name
            if not left[0] and name == "metrics.jsonl":
                raise Death
            write(path, fill)
            if not left[0]:
                raise Death

        monkeypatch.setattr(files, "write_atomically", dying)
        with pytest.raises(Death):
            run(PART_1, *words, *["--resume"] * (tmp_path / RUN).exists())
        assert len(state(tmp_path)["trainer"]["losses"]) == steps and len(state(tmp_path)["history"]) == 1
    monkeypatch.setattr(files, "write_atomically", write)
    assert run(PART_1, *words, "--resume").returncode == 0
    same_training(state(finished[0]), state(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_prints_the_command_that_continues(finished, tmp_path, monkeypatch, number):
    real, words = Trainer.update, training(tmp_path, "--limit-steps", 12)

    def update(self, *args):
        if self.step == 4:
            os.kill(os.getpid(), number)
        return real(self, *args)

    monkeypatch.setattr(Trainer, "update", update)
    stopped = run(PART_1, *words)
    assert stopped.returncode == 128 + number
    *_, first, second = stopped.stdout.splitlines()
    assert first == f"stopped by {signal.Signals(number).name}; the state is saved. Continue with"
    assert second.startswith("  python src/part_1.py 1 light --out ") and second.endswith("--resume")
    assert len(state(tmp_path)["trainer"]["losses"]) == 5
    monkeypatch.undo()
    assert run(PART_1, *words, "--resume").returncode == 0
    same_training(state(finished[0]), state(tmp_path))


@pytest.mark.parametrize(
    ("around", "command"),
    [
        ({}, "python src/part_1.py 1 light --resume"),
        (
            {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2"},
            "torchrun --nproc-per-node 2 src/part_1.py 1 light --resume",
        ),
    ],
)
def test_the_command_that_continues_begins_as_the_stopped_one_did(monkeypatch, capsys, around, command):
    def main(argv):
        raise Stopped(signal.SIGTERM)

    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(sys, "argv", ["src/part_1.py", "1", "light"])
    for name, value in around.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as left:
        options.run_command(main)
    assert left.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().out.splitlines()[-1] == f"  {command}"


def test_resume_refuses_a_contradiction_and_a_new_run_keeps_the_old_one(tmp_path):
    first = run(PART_1, *training(tmp_path, "--limit-steps", 1))
    assert first.returncode == 0, first.stderr
    clash = run(PART_1, *training(tmp_path, "--limit-steps", 2, "--resume", "--lr", "0.5"))
    assert clash.returncode == 2 and "was made with lr 0.0002, not 0.5" in clash.stderr
    again = run(PART_1, *training(tmp_path, "--limit-steps", 1, "--seed", 1))
    assert again.returncode == 0 and "the earlier run is kept in" in again.stdout
    assert (tmp_path / "runs/DDPM_light.1/ddpm_mnist_1_light.pth").exists()
    assert not torch.equal(state(tmp_path)["trainer"]["losses"], state(tmp_path, "DDPM_light.1")["trainer"]["losses"])


# --- Several processes ---

ACCELERATE = ["--cpu", "--num_processes", "2"]


def test_accelerate_launch_on_cpus_is_answered_with_torchrun(tmp_path, monkeypatch):
    """It would start one process, told of others that never come: what it starts is run here."""
    started = []

    class Process:
        returncode = 0

        def __init__(self, command, env):
            started.append((command, env))

        def wait(self):
            return 0

    words = list(map(str, training(tmp_path)))
    with monkeypatch.context() as patched:
        patched.setattr(launch.subprocess, "Popen", Process)
        launch.launch_command(launch.launch_command_parser().parse_args([*ACCELERATE, PART_1, *words]))
    ((command, env),) = started
    assert command[-len(words) :] == words
    for name in env.keys() - os.environ.keys():
        monkeypatch.setenv(name, env[name])
    done = run(PART_1, *words)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not any(tmp_path.iterdir())
    assert f"use torchrun --nproc-per-node N {PART_1} 1 light" in done.stderr


@pytest.mark.slow
def test_torchrun_trains_the_same_model_on_two_processes(tmp_path):
    """Among the fast tests the engine's two processes are in test_training.py."""
    launched = lambda module, *words: subprocess.run(
        process("-m", module, *words), cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=280
    )
    words = training(tmp_path / "two", "--limit-steps", 12, "--precision", "fp32")
    answer = launched("accelerate.commands.launch", *ACCELERATE, PART_1, *words)
    assert answer.returncode and "use torchrun --nproc-per-node N" in answer.stderr
    two = launched("torch.distributed.run", "--standalone", "--nproc-per-node", 2, PART_1, *words)
    assert two.returncode == 0, two.stderr
    assert run(PART_1, *training(tmp_path, "--limit-steps", 12, "--precision", "fp32")).returncode == 0
    a, b = state(tmp_path), state(tmp_path / "two")
    torch.testing.assert_close(a["trainer"]["ema"], b["trainer"]["ema"], atol=1e-5, rtol=0)
    torch.testing.assert_close(a["trainer"]["losses"], b["trainer"]["losses"], atol=1e-5, rtol=1e-4)
    assert a["history"][-1]["fid"] == pytest.approx(b["history"][-1]["fid"], rel=1e-2)
    assert two.stdout.count("floor (real test images)") == 1  # one of the two speaks


# --- Mistakes ---


@pytest.mark.parametrize("words, says", [
    (["1", "defualt"], "did you mean 'default'"),
    (["-1", "default"], "not an integer of at least 0"),
    (["two", "default"], "'two' is not an integer"),
    (["1"], "PRESET"),
    (["1", "default", "--lr", "nan"], "'nan' is not a number"),
    (["1", "default", "--sampler", "dimm"], "did you mean 'ddim'"),
    (["1", "default", "--dataset", "mnist"], "did you mean 'MNIST'"),
    (["1", "default", "--sede", "3"], "did you mean '--seed'"),
    (["1", "testing", "--steps", "101"], "steps must be a whole number from 1 to 100"),
    (["1", "default", "--batch-size", "60001"], "from 1 to 60000"),
    (["1", "default", "--device", "cuda"], "no CUDA GPU"),
    (["1", "default", "--features", "inception", "--inception-weights", "no/such.pth"], "no file"),
])  # fmt: skip
def test_wrong_input_is_one_sentence_exit_code_2_and_nothing_written(tmp_path, words, says):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    left = run(PART_1, *words, "--out", tmp_path, *DATA)
    assert left.returncode == 2 and says in left.stderr and left.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["runs", "Plots", "contents"])
def test_a_folder_that_cannot_be_written_is_found_at_the_start(tmp_path, folder):
    (tmp_path / folder).write_text("a file where the folder should be")
    done = run(PART_1, *training(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{str(tmp_path / folder)!r} is a file" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_epoch_0_writes_the_untrained_model_and_its_samples(tmp_path):
    done = run(PART_1, "0", "testing", "--out", tmp_path, *QUICK)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/DDPM_testing/ddpm_mnist_0_testing.pth").exists()
    assert (tmp_path / "contents/ddpm_sample_0000_testing.png").exists()
