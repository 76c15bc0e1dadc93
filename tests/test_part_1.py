"""The commands as a person runs them: real processes, real data, real kills."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import part_1
from diffusion import files
from diffusion.laboratory import options
from diffusion.laboratory.stopping import Stopped, stoppable

ROOT = Path(__file__).parents[1]
QUICK = ["--eval-samples", "16", "--eval-seeds", "2", "--steps", "2", "--data-root", str(ROOT / "data")]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*words, cwd=ROOT, script="src/part_1.py"):
    command = [sys.executable, str(ROOT / script), *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=ENV, capture_output=True, text=True, timeout=280)


def training(out, *words):
    """Arguments of a small but real run."""
    return ["1", "light", "--out", out, *QUICK, "--batch-size", "32", *words]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 12 steps, unbroken: what every other way to 12 steps must reach."""
    out = tmp_path_factory.mktemp("finished")
    done = run(*training(out, "--limit-steps", 12))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


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
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {
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
    weights = out / "runs/DDPM_light/ddpm_mnist_1_light.pth"
    for name, batch in (("a", 9), ("b", 4)):
        done = run("generate", "--weights", weights, "--count", 9, "--seed", 3, "--steps", 3, "--batch-size", batch,
                   "--out", tmp_path / f"{name}.npy", script="src")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "ema weights, epoch 1" in done.stdout
    a, b = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert a.shape == (9, 1, 28, 28) and a.dtype == np.float32 and a.min() >= 0 and a.max() <= 1
    np.testing.assert_allclose(a, b, atol=2e-3)  # the noise is equal; bf16 convolutions round by batch shape
    assert a.std() > 0.05 and abs(a[0] - a[1]).max() > 0.1
    done = run("generate", "--weights", weights, "--count", 9, "--steps", 3, "--seed", 3, "--out", tmp_path / "a.png",
               script="src")  # fmt: skip
    pixels = np.asarray(Image.open(tmp_path / "a.png"))[6::4, 6::4]  # back from four screen pixels to one
    np.testing.assert_array_equal(pixels[:28, :28], (a[0, 0] * 255).round())


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments_then_resume_reaches_the_unbroken_run(finished, tmp_path, seed):
    """--save-every 0 saves after every step, so that many kills fall inside a save."""
    words = training(tmp_path, "--limit-steps", 12, "--save-every", 0)
    command = [sys.executable, str(ROOT / "src/part_1.py"), *map(str, words)]
    saved, kills, rng = tmp_path / "runs/DDPM_light/state.pt", 0, random.Random(seed)
    for _ in range(4):
        resume = ["--resume"] if saved.exists() else []
        child = subprocess.Popen(
            [*command, *resume], cwd=ROOT, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        began = saved.stat().st_mtime_ns if saved.exists() else 0
        while child.poll() is None and not (saved.exists() and saved.stat().st_mtime_ns > began):
            time.sleep(0.01)  # until the training proper has begun
        time.sleep(rng.uniform(0, 1.0))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        state(tmp_path)  # what is there always loads
    done = run(*words, "--resume")
    assert done.returncode == 0, done.stderr
    assert kills >= 2, "the kills came too late to test anything"
    same_training(state(finished[0]), state(tmp_path))
    assert not list((tmp_path / "runs/DDPM_light").glob(".*"))  # what a killed save left was cleared away


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_prints_the_command_that_continues(tmp_path, number):
    words = training(tmp_path, "--limit-steps", 100_000)
    command = [sys.executable, str(ROOT / "src/part_1.py"), *map(str, words)]
    child = subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while child.poll() is None and not (tmp_path / "runs/DDPM_light/ddpm_mnist_0_light.pth").exists():
        time.sleep(0.05)
    time.sleep(2)
    child.send_signal(number)
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 128 + number
    assert signal.Signals(number).name in said and "--resume" in said and "src/part_1.py 1 light" in said
    assert len(state(tmp_path)["trainer"]["losses"]) >= 1


@pytest.mark.parametrize(
    ("around", "command"),
    [({}, "python src/part_1.py 1 light --resume"),
     ({"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2"},
      "torchrun --nproc-per-node 2 src/part_1.py 1 light --resume")],
)  # fmt: skip
def test_the_command_that_continues_begins_as_the_stopped_one_did(monkeypatch, capsys, around, command):
    @stoppable
    def main(argv):
        raise Stopped(signal.SIGTERM)

    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(sys, "argv", ["src/part_1.py", "1", "light"])
    for name, value in around.items():
        monkeypatch.setenv(name, value)
    assert main() == 128 + signal.SIGTERM
    assert capsys.readouterr().out.splitlines()[-1] == f"  {command}"


def test_resume_refuses_a_contradiction_and_a_new_run_keeps_the_old_one(finished, tmp_path):
    first = run(*training(tmp_path, "--limit-steps", 1))
    assert first.returncode == 0, first.stderr
    clash = run(*training(tmp_path, "--limit-steps", 2, "--resume", "--lr", "0.5"))
    assert clash.returncode == 2 and "was made with lr 0.0002, not 0.5" in clash.stderr
    again = run(*training(tmp_path, "--limit-steps", 1, "--seed", 1))
    assert again.returncode == 0 and "the earlier run is kept in" in again.stdout
    assert (tmp_path / "runs/DDPM_light.1/ddpm_mnist_1_light.pth").exists()
    assert not torch.equal(state(tmp_path)["trainer"]["losses"], state(tmp_path, "DDPM_light.1")["trainer"]["losses"])


def test_accelerate_launch_trains_the_same_model_on_two_processes(finished, tmp_path):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    words = training(tmp_path, "--limit-steps", 12, "--precision", "fp32")
    one = run(*training(tmp_path / "one", "--limit-steps", 12, "--precision", "fp32"))
    assert one.returncode == 0, one.stderr
    two = subprocess.run([*launch, str(ROOT / "src/part_1.py"), *map(str, words)], cwd=ROOT, env=ENV,
                         capture_output=True, text=True, timeout=280)  # fmt: skip
    assert two.returncode == 0, two.stderr
    a, b = state(tmp_path / "one"), state(tmp_path)
    torch.testing.assert_close(a["trainer"]["ema"], b["trainer"]["ema"], atol=1e-5, rtol=0)
    torch.testing.assert_close(a["trainer"]["losses"], b["trainer"]["losses"], atol=1e-5, rtol=1e-4)
    assert a["history"][-1]["fid"] == pytest.approx(b["history"][-1]["fid"], rel=1e-2)
    assert two.stdout.count("floor (real test images)") == 1  # one of the two speaks


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
def test_wrong_input_is_one_sentence_exit_code_2_and_nothing_written(tmp_path, capsys, words, says):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    command = [*words, "--out", str(tmp_path), "--data-root", str(ROOT / "data")]
    with pytest.raises(SystemExit) as left:
        options.run_command(part_1.main, command)  # in this process: twelve starts of torch would take a minute
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert says in said and said.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_found_at_the_start(tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    began = time.monotonic()
    done = run(*training(tmp_path))
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert time.monotonic() - began < 120  # before the epoch, which takes longer


def test_epoch_0_writes_the_untrained_model_and_its_samples(tmp_path):
    done = run("0", "testing", "--out", tmp_path, *QUICK)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/DDPM_testing/ddpm_mnist_0_testing.pth").exists()
    assert (tmp_path / "contents/ddpm_sample_0000_testing.png").exists()
