"""`python src train` as a person runs it, on real data, killed and resumed; and the plan of its learning rate."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from in_process import DATA, ROOT, files_in, run
from PIL import Image
from test_training import digits, same

from diffusion import files
from diffusion.api import generation
from diffusion.cli import train as command_line
from diffusion.commands import train
from diffusion.experiment.build import build
from diffusion.experiment.config import Config
from diffusion.experiment.recipe import read
from diffusion.experiment.weights import load_weights
from diffusion.laboratory import progress
from diffusion.laboratory import run as laboratory
from diffusion.training.trainer import Trainer

# A network that takes a step in milliseconds, on the real digits.
TINY = ["--preset", "unet_fast", "--network.hidden=[8,16]", "--batch-size", "16", "--train.warmup=3"]
QUICK = ["--eval-samples", "16", "--eval-seeds", "1", "--sample.steps=2", "--sample.count=12", "--device", "cpu", *DATA]
EIGHT = ["--steps", "8", "--train.sheet_steps=[2,5]"]


@pytest.fixture
def here(monkeypatch):
    """Runs the command in this process, without its curves, which take longer than all the rest."""
    monkeypatch.setattr(train, "draw_curves", lambda *_: None)

    def run_here(*words, code=0):
        done = run("src", "train", *words)
        assert done.returncode == code, done.stderr
        return done

    return run_here


def state(out, name="unet_fast"):
    return files.load(out / "runs" / name / "state.pt")


def metrics(out, name="unet_fast"):
    return [json.loads(line) for line in (out / "runs" / name / "metrics.jsonl").read_text().splitlines()]


def same_run(a, b):
    """Weights, average, optimizer, losses, planned end and scores to the bit; wall times differ, of course."""
    assert same(a["trainer"], b["trainer"])
    timeless = lambda history: [{k: v for k, v in line.items() if k != "seconds"} for line in history]
    assert timeless(a["history"]) == timeless(b["history"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of eight steps, unbroken: what every other way to eight steps must reach."""
    out = tmp_path_factory.mktemp("finished")
    done = run("src", "train", *TINY, *QUICK, *EIGHT, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


# --- The command ---


def test_a_run_writes_sheets_weights_scores_and_its_recipe_and_says_where(finished):
    out, said = finished
    assert files_in(out) == {
        *(f"contents/unet_fast_sample_{step:06d}.png" for step in (0, 2, 5, 8)),
        *(f"Plots/{name}_for_unet_fast.png" for name in ("losses", "fid", "incept_score")),
        *(f"runs/unet_fast/{name}" for name in ("state.pt", "metrics.jsonl", "config.json", "recipe.yaml")),
        "runs/unet_fast/unet_fast.pth",
    }
    for word in ("FID", "KID", "floor", "N = 16", "sha256", "8 training steps", "contents/", "unet_fast_sample_000008"):
        assert word in said, word
    # twelve digits, ten to a row: 10 × 2 of 28 and the lines between, times 4
    assert Image.open(out / "contents/unet_fast_sample_000008.png").size == (4 * (10 * 29 + 1), 4 * (2 * 29 + 1))
    assert [line["step"] for line in metrics(out)] == [0, 2, 5, 8]


def test_the_weights_are_those_of_the_average_and_remember_labels(finished):
    out, _ = finished
    experiment = load_weights(out / "runs/unet_fast/unet_fast.pth")
    assert experiment.config.classes == 10 and experiment.config.hidden == (8, 16)
    assert (experiment.about["step"], experiment.about["holds"]) == (8, "ema")
    ema = {key.removeprefix("network."): value for key, value in state(out)["trainer"]["ema"].items()}
    assert all(torch.equal(value, ema[key]) for key, value in experiment.denoiser.network.state_dict().items())


def test_the_recipe_in_the_folder_makes_the_same_run_again(finished, tmp_path, here):
    out, _ = finished
    path = out / "runs/unet_fast/recipe.yaml"
    what = read(path)
    assert what.config.hidden == (8, 16) and what.config.batch_size == 16 and what.config.warmup == 3
    assert (what.plan.steps, what.plan.sheet_steps, what.sheet.count) == (8, (2, 5), 12)
    assert what.config.sampler_steps == 2
    here("--config", path, "--out", tmp_path, *DATA, "--device", "cpu", "--eval-samples", 16, "--eval-seeds", 1)
    same_run(state(out), state(tmp_path, "recipe"))
    assert (tmp_path / "runs/recipe/recipe.yaml").read_text() == path.read_text()
    sheets = (
        folder / f"contents/{name}_sample_000008.png" for folder, name in ((out, "unet_fast"), (tmp_path, "recipe"))
    )
    assert len({sheet.read_bytes() for sheet in sheets}) == 1


def test_a_file_is_trained_as_it_says_with_what_the_command_line_changes(tmp_path, here):
    path = tmp_path / "short.yaml"
    path.write_text("preset: unet_fast\nnetwork: {hidden: [8, 16], classes: 0}\n"
                    "train: {steps: 900, minutes: 9, batch_size: 16, warmup: 3, precision: fp32, sheet_steps: [1]}\n"
                    "sample: {steps: 2, count: 12}\n")  # fmt: skip
    here("--config", path, *QUICK, "--out", tmp_path, "--steps", 2, "--train.lr=1e-3", "--seed", 7)
    config = json.loads((tmp_path / "runs/short/config.json").read_text())
    assert (config["lr"], config["seed"], config["classes"], config["precision"]) == (1e-3, 7, 0, "fp32")
    assert [line["step"] for line in metrics(tmp_path, "short")] == [0, 1, 2]  # not the file's 900 steps, 9 minutes
    plan = read(tmp_path / "runs/short/recipe.yaml").plan
    assert (plan.steps, plan.epochs, plan.minutes) == (2, None, None)


def test_a_preset_brings_its_data_set_and_the_option_another(tmp_path, here, monkeypatch):
    asked = []

    def stop(name, *_):
        asked.append(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(laboratory, "load", stop)
    for words in (["--preset", "unet_fashion"], ["--preset", "unet_fast"], ["--data.dataset=FashionMNIST"],
                  ["--preset", "unet_fashion", "--dataset", "MNIST"]):  # fmt: skip
        here(*words, *QUICK, "--steps", 1, "--out", tmp_path, code=130)
    assert asked == ["FashionMNIST", "MNIST", "FashionMNIST", "MNIST"]


def test_all_sheets_are_drawn_of_the_same_noise_and_labels(tmp_path, here, monkeypatch):
    starts, real = [], generation.trajectory

    def watched(experiment, index, options, **given):
        states = list(real(experiment, index, options, **given))
        scale = experiment.config.guidance_scale
        starts.append((len(index), given["labels"], scale, states[0]))
        return states

    monkeypatch.setattr(generation, "trajectory", watched)
    words = ["--steps", 2, "--train.sheet_steps=[1]", "--sample.guidance_scale=1.5"]
    here(*TINY, *QUICK, *words, "--out", tmp_path)
    sheets = [each for each in starts if each[0] == 12]
    assert len(sheets) == 3  # after steps 0, 1 and 2
    for _, labels, scale, x_1 in sheets:
        assert torch.equal(labels, torch.arange(12) % 10) and torch.equal(x_1, sheets[0][3])
        assert scale == 1.5
    scored = [labels for count, labels, _, _ in starts if count == 16]
    assert len(scored) == 3 and all(torch.equal(labels, scored[0]) for labels in scored)  # as frequent as in the data


def test_epochs_are_passes_over_the_data(tmp_path, here):
    here(*TINY, *QUICK, "--epochs", 0.001, "--out", tmp_path)  # of 60,000 digits in batches of 16
    assert [line["step"] for line in metrics(tmp_path)] == [0, 4] and state(tmp_path)["trainer"]["end"] == 4


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_minutes_end_the_training_with_the_learning_rate_at_its_lowest(tmp_path, here, decay):
    minutes = 0.005
    here(*TINY, *QUICK, "--minutes", minutes, f"--train.decay={decay}", "--train.warmup=0", "--out", tmp_path)
    done, lines = state(tmp_path), metrics(tmp_path)
    steps = len(done["trainer"]["losses"])
    assert done["trainer"]["end"] == steps == lines[-1]["step"]
    # the clock is looked at after every step; when decay begins, as many steps again are promised as half the time took
    assert 60 * minutes * (1 - decay) <= done["seconds"] < 60 * minutes + 3
    group = done["trainer"]["optimizer"]["param_groups"][0]
    assert group["lr"] == pytest.approx(2e-3 / (decay * steps) if decay else 2e-3, rel=1e-6)


def test_a_slow_first_step_does_not_shorten_the_minutes(tmp_path, here, monkeypatch):
    """On a GPU the first step compiles the network: it says nothing of how many there will be. See test_budget.py."""
    real = Trainer.update

    def update(self, *args):
        time.sleep(0.25 * (self.step == 0))
        return real(self, *args)

    monkeypatch.setattr(Trainer, "update", update)
    here(*TINY, *QUICK, "--minutes", 0.02, "--train.decay=0.9", "--train.warmup=0", "--out", tmp_path)
    assert 0.6 * 1.2 < state(tmp_path)["seconds"] < 1.2 + 3


def test_dotted_budgets_beside_plain_ones_count(monkeypatch):
    what = command_line.read(["--preset", "unet_fast", "--minutes", "60", "--train.steps=10"]).recipe
    assert (what.plan.minutes, what.plan.steps) == (60, 10)
    what = command_line.read(["--config", str(ROOT / "configs/mnist_guided.yaml"), "--minutes", "5"]).recipe
    assert (what.plan.minutes, what.plan.steps) == (5, None)


@pytest.mark.parametrize("weight", [0, 0.3])
def test_alpha_is_the_weight_of_the_kl_divergence_even_none(weight):
    words = ["--preset", "latent_vae", "--steps", "1", "--alpha", str(weight)]
    assert command_line.read(words).recipe.config.kl_weight == weight


def test_of_two_budgets_the_one_used_up_first_ends_the_training(tmp_path, here):
    here(*TINY, *QUICK, "--minutes", 0.002, "--steps", 600, "--out", tmp_path)
    assert metrics(tmp_path)[-1]["step"] < 600


# --- Killed, stopped, resumed ---


def test_kill_9_frees_the_folder_and_a_resume_reaches_the_unbroken_run(finished, tmp_path, here):
    """A process that saves after every step is halted at a random moment, then killed. More kills: test_part_1.py."""
    words = [*TINY, *QUICK, *EIGHT, "--save-every", "0", "--out", str(tmp_path)]
    saved = tmp_path / "runs/unet_fast/state.pt"
    written = lambda: saved.stat().st_mtime_ns if saved.exists() else 0
    env, quiet = {**os.environ, "OMP_NUM_THREADS": "1"}, {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "src", "train", *words], cwd=ROOT, env=env, **quiet) as child:
        try:
            for _ in range(6):  # of the sixteen saves that an unbroken run makes
                before = written()
                while child.poll() is None and written() == before:
                    time.sleep(0.001)
            time.sleep(random.uniform(0, 0.02))
            assert child.poll() is None
            child.send_signal(signal.SIGSTOP)
            refused = here(*TINY, *QUICK, *EIGHT, "--seed", 5, "--out", tmp_path, code=2)
            assert "another process is training" in refused.stderr
        finally:
            child.kill()
    assert child.returncode == -signal.SIGKILL
    reached = len(state(tmp_path)["trainer"]["losses"])  # what is there always loads
    assert 0 < reached < 8, f"the kill after step {reached} tested nothing"
    here(*words, "--resume")  # the lock died with its process
    same_run(state(finished[0]), state(tmp_path))
    assert not (tmp_path / "runs/unet_fast.1").exists()
    assert not list((tmp_path / "runs/unet_fast").glob(".*"))  # what a killed save left was cleared away


def test_a_stopped_run_leaves_the_weights_of_its_last_step(finished, tmp_path, here, monkeypatch):
    real = Trainer.update

    def update(self, *args):
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *args)

    monkeypatch.setattr(Trainer, "update", update)
    here(*TINY, *QUICK, *EIGHT, "--out", tmp_path, code=128 + signal.SIGTERM)
    left = load_weights(tmp_path / "runs/unet_fast/unet_fast.pth")
    assert left.about["step"] == 4 and same(left.denoiser.state_dict(), state(tmp_path)["trainer"]["ema"])
    monkeypatch.undo()
    done = run("src", "train", *TINY, *QUICK, *EIGHT, "--out", tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    same_run(state(finished[0]), state(tmp_path))


def test_trained_weights_without_a_state_are_kept_and_one_of_another_kind_is_refused(finished, tmp_path, here):
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    folder = tmp_path / "runs/unet_fast"
    files.save(folder / "state.pt", {"trainer": 1})
    assert "not one of this run" in here(*TINY, *QUICK, *EIGHT, "--out", tmp_path, "--resume", code=2).stderr
    (folder / "state.pt").unlink()
    weights = (folder / "unet_fast.pth").read_bytes()
    said = here(*TINY, *QUICK, "--steps", 1, "--out", tmp_path, "--resume").stdout
    assert "nothing to resume" in said and "the earlier run is kept" in said
    assert (tmp_path / "runs/unet_fast.1/unet_fast.pth").read_bytes() == weights


def test_a_finished_run_resumed_only_reports_again(finished, here):
    out, _ = finished
    before, text = state(out), (out / "runs/unet_fast/recipe.yaml").read_text()
    assert "8 training steps" in here(*TINY, *QUICK, *EIGHT, "--out", out, "--resume").stdout
    same_run(state(out), before)
    assert (out / "runs/unet_fast/recipe.yaml").read_text() == text


def test_a_longer_plan_extends_a_run(finished, tmp_path, here):
    """Its learning rate had fallen to nothing; it rises again, and falls towards the new end."""
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    said = here(*TINY, *QUICK, "--steps", 14, "--out", tmp_path, "--resume").stdout
    assert "planned to end at step 8, is extended" in said
    done = state(tmp_path)["trainer"]
    assert done["end"] == len(done["losses"]) == 14 and metrics(tmp_path)[-1]["step"] == 14
    assert torch.equal(done["losses"][:8], state(finished[0])["trainer"]["losses"])
    assert done["optimizer"]["param_groups"][0]["lr"] == pytest.approx(2e-3 / (0.3 * 14))  # of the last step
    assert read(tmp_path / "runs/unet_fast/recipe.yaml").plan.steps == 14


def test_more_minutes_extend_a_run_and_the_same_minutes_do_not(tmp_path, here):
    words = [*TINY, *QUICK, "--train.decay=0.5", "--out", tmp_path]
    here(*words, "--minutes", 0.004)
    first = len(state(tmp_path)["trainer"]["losses"])
    here(*words, "--minutes", 0.004, "--resume")
    assert len(state(tmp_path)["trainer"]["losses"]) == first
    here(*words, "--minutes", 0.008, "--resume")
    done = state(tmp_path)
    assert done["trainer"]["end"] == len(done["trainer"]["losses"]) > first


@pytest.mark.parametrize("words, says", [
    (["--steps", "7"], "was planned to end at step 8, not 7"),
    (["--epochs", "0.001"], "was planned to end at step 8, not 4"),
    (["--steps", "8", "--lr", "0.5"], "was made with lr 0.002, not 0.5"),
    (["--steps", "8", "--train.lr=0.5"], "was made with train.lr 0.002, not 0.5"),
    (["--steps", "8", "--sample.steps=7"], "was made with sample.steps 2, not 7"),
])  # fmt: skip
def test_a_resume_that_contradicts_the_run_is_refused_and_changes_nothing(finished, here, words, says):
    out, _ = finished
    contents = lambda: {path: (out / path).read_bytes() for path in files_in(out)}
    files = contents()
    said = here(*TINY, *QUICK, "--out", out, "--resume", *words, code=2).stderr
    assert says in said and said.count("\n") == 1 and "Traceback" not in said
    assert files == contents() and files


# --- Mistakes ---


@pytest.mark.parametrize("words, says", [
    ([], "how long? Say --steps, --epochs or --minutes"),
    (["--preset", "unet_fats", "--steps", "1"], "did you mean 'unet_fast'"),
    (["--preset", "unet", "--config", "x.yaml", "--steps", "1"], "not allowed with argument --preset"),
    (["--config", "no/such.yaml", "--steps", "1"], "'no/such.yaml' cannot be read: No such file"),
    (["--steps", "0"], "'0' is not an integer from 1"),
    (["--minutes", "nan"], "'nan' is not a number"),
    (["--train.minutes=nan"], "'train.minutes' cannot be"),
    (["--epochs", "-1"], "'-1' is not a number"),
    (["--steps", "1", "--train.rate=1"], "unknown setting 'train.rate'"),
    (["--steps", "1", "--train.wramup=1"], "did you mean 'train.warmup'"),
    (["--steps", "1", "--train.lr=fast"], "setting 'train.lr' cannot be 'fast'"),
    (["--steps", "1", "--network.hidden=[8,"], "is not an override"),
    (["--steps", "1", "--sample.sampler=alg1"], "unknown sampler 'alg1'"),
    (["--steps", "1", "--sample.sampler=ddpm", "--process.schedule=linear", "--process.target=eps",
      "--sample.steps=1001"], "steps must be a whole number from 1 to 1000"),
    (["--steps", "1", "--network.network=cnn"], "network 'cnn' cannot be class-conditional"),
    (["--steps", "1", "--batch-size", "60001"], "from 1 to 60000"),
    (["--steps", "1", "--data.dataset=FashionMINST"], "did you mean 'FashionMNIST'"),
    (["--steps", "1", "--stpes", "2"], "did you mean '--steps'"),
    (["--steps", "1", "--hidden=[8,16]"], "did you mean '--network.hidden=…'"),
    (["--steps", "1", "--guidance-scale", "2"], "did you mean '--sample.guidance_scale=…'"),
    (["--steps", "1", "--train.minutes=1:30"], "setting 'train.minutes' cannot be '1:30'"),
    (["--steps", "1", "--preset", "unet_cifar"], "CIFAR10 is measured with"),  # and nothing was downloaded
    (["--steps", "1", "--train.lr", "1e-3"], "unrecognized arguments: 1e-3"),  # it takes a =
    (["--steps", "1", "--gamma", "0"], "setting 'train.gamma' cannot be 0"),
    (["--steps", "1", "--data.samples=100"], "MNIST is used whole"),
    (["--steps", "1", "--split", "balanced"], "--split balanced goes with --dataset EMNIST"),
    (["--steps", "1", "--promote", "yes"], "--promote goes with --model"),
    (["--steps", "1", "--autoencoder-version=dev"], "--autoencoder-version goes with --model"),
])  # fmt: skip
def test_wrong_input_is_one_sentence_exit_code_2_and_nothing_written(tmp_path, here, words, says):
    said = here(*words, "--out", tmp_path, *DATA, "--device", "cpu", code=2).stderr
    assert says in said and said.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_refused(tmp_path, here):
    (tmp_path / "taken").write_text("mine")
    for option, path in (("--out", tmp_path / "taken" / "below"), ("--data-root", tmp_path / "taken")):
        said = here("--steps", "1", option, path, code=2).stderr
        assert f"{str(path)!r} cannot be a folder: {str(tmp_path / 'taken')!r} is a file" in said
    assert (tmp_path / "taken").read_text() == "mine"


def test_progress_counts_to_the_limit(tmp_path, here, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0)
    said = here(*TINY, *QUICK, *EIGHT, "--limit-steps", 3, "--out", tmp_path).stderr
    assert "training: 2 of 3 steps" in said


# --- The learning rate ---


def trainer(**changes):
    config = Config(hidden=(4, 4), timesteps=10, batch_size=16, lr=0.5, **changes)
    return Trainer(build(config), digits())


def rates(ours, until):
    """The learning rate with which each step was really taken."""
    return [ours.optimizer.param_groups[0]["lr"] for _ in ours.train(until)]


def test_the_learning_rate_rises_stays_and_falls_to_0():
    ours = trainer(warmup=4, decay=0.5)
    ours.end = 12
    quarter, sixth = 0.125, 0.5 / 6
    expected = [quarter, 2 * quarter, 3 * quarter, 0.5, 0.5, 0.5, 0.5, *(n * sixth for n in (5, 4, 3, 2, 1))]
    assert rates(ours, 12) == pytest.approx(expected)
    assert ours.lr == 0


@pytest.mark.parametrize("warmup, decay, end, expected", [
    (0, 0.0, None, [0.5] * 6),
    (0, 0.0, 6, [0.5] * 6),  # a planned end alone lets nothing fall
    (0, 0.5, None, [0.5] * 6),  # nor does an unknown one
    (3, 0.0, None, [0.5 / 3, 1 / 3, 0.5, 0.5, 0.5, 0.5]),
    (0, 1.0, 5, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]),
    (4, 1.0, 4, [0.125, 0.25, 0.25, 0.125, 0.0, 0.0]),  # where both bite, the lower; past the end, 0 and not below
])  # fmt: skip
def test_of_warm_up_and_decay_the_lower_decides(warmup, decay, end, expected):
    ours = trainer(warmup=warmup, decay=decay)
    ours.end = end
    assert rates(ours, 6) == pytest.approx(expected)


def test_in_a_long_training_the_last_steps_are_nearly_still():
    ours = trainer(warmup=100, decay=0.3)
    ours.end = 10_000
    at = {}
    for step in (0, 99, 5000, 7000, 8500, 9999):
        ours.losses = [0.0] * step
        at[step] = ours.lr / 0.5
    assert at == pytest.approx({0: 0.01, 99: 1, 5000: 1, 7000: 1, 8500: 0.5, 9999: 1 / 3000})


def test_the_planned_end_survives_a_resume(tmp_path):
    whole, broken = trainer(warmup=3, decay=0.5), trainer(warmup=3, decay=0.5)
    whole.end = broken.end = 10
    expected = rates(whole, 10)
    begun = rates(broken, 6)
    resumed = trainer(warmup=3, decay=0.5)
    resumed.load_state(files.load(files.save(tmp_path / "state.pt", broken.state())))
    assert resumed.end == 10 and begun + rates(resumed, 10) == expected
    assert same(resumed.state(), whole.state())
