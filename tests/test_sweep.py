"""`python src sweep`: every trial once, whoever dies and however many work; real processes, real kills."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState
from PIL import Image

from diffusion import figures, files
from diffusion.__main__ import main
from diffusion.commands import sweep
from diffusion.errors import Failure
from diffusion.laboratory import options, trials
from diffusion.laboratory.folder import Folder

ROOT = Path(__file__).parents[1]
pytestmark = [  # that optuna calls its heartbeat an experiment, and that these tests ask it for trials themselves
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
    pytest.mark.filterwarnings("ignore:Heartbeat of storage"),
]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
DATA = ["--data-root", str(ROOT / "data"), "--device", "cpu"]
QUICK = ["--batch-size", "16", "--limit-steps", "3", "--eval-samples", "16", "--steps", "2", *DATA]
GRID = ["--presets", "light,testing", *QUICK]


def here(*words, code=0):
    """Run the command in this process, which saves the start of torch; its signal handlers are taken back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as left:
            options.run_command(main, ["sweep", *map(str, words)])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert left.value.code == code


def start(*words):
    """Start it as a process of its own."""
    command = [sys.executable, str(ROOT / "src"), "sweep", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=ENV, **pipes)


def rows(out, name="light-testing"):
    """What trials.jsonl says, by trial."""
    lines = (out / "runs/sweeps" / name / "trials.jsonl").read_text().splitlines()
    return {row["trial"]: row for row in map(json.loads, lines)}


def study_of(out, name="light-testing"):
    """All that optuna knows, with failed attempts, through a storage of our own."""
    return optuna.load_study(study_name=name, storage=trials.Storage(f"sqlite:///{out}/runs/sweeps/{name}/trials.db"))


def states(out, name="light-testing"):
    return [trial.state.name for trial in study_of(out, name).trials]


@pytest.fixture(scope="module", autouse=True)
def without_fsync():
    """The databases of these tests outlive a kill, but no power cut: that is quicker."""

    def hurry(connection, record):
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", hurry)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", hurry)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A grid of two presets and two seeds, really trained."""
    out = tmp_path_factory.mktemp("finished")
    here(*GRID, "--seeds", 2, "--out", out)
    return out


@pytest.fixture
def pretend(monkeypatch):
    """Nothing is trained: the score is a function of the config. Yields the runs in the order of their training."""
    seen = []

    class Run:
        def __init__(self, config, options, name, weights, folder):
            self.config, self.options, self.name = config, options, name
            self.folder, self.history = Folder(folder), [{"epoch": 1, "fid": 3.0}]

    def trained(run, judge, args):
        seen.append(run)
        fid = 1 + abs(np.log(run.config.lr / 1e-3)) + run.config.timesteps / 1000
        about = {"n": 16, "n_reference": 60_000, "extractor": "none", "sha256": "0" * 64, "floor": 0.1}
        return {"fid": fid, "inception_score": 1.0, "kid": 0.0, "loss": 0.5, "minutes": 0.1, **about}

    for name, stand_in in (("Run", Run), ("Judge", lambda *_: None), ("trained", trained)):
        monkeypatch.setattr(sweep, name, stand_in)
    monkeypatch.setattr(figures, "trials", lambda study, stem: [])  # drawn where trials are trained
    return seen


# --- The grid ---


def test_a_grid_trains_every_preset_under_every_seed(finished):
    found = rows(finished)
    assert set(found) == {f"{preset}_seed_{seed}" for preset in ("light", "testing") for seed in (0, 1)}
    for row in found.values():
        assert row["state"] == "complete" and row["fid"] > 0 and row["fids"] == {"1": row["fid"]} and row["step"] == 3
        config = json.loads((finished / "runs/sweeps/light-testing" / row["trial"] / "config.json").read_text())
        assert row["settings"] == {"preset": config["preset"], "seed": config["seed"]}
    assert [row["fid"] for row in found.values()] == sorted(row["fid"] for row in found.values())
    assert len({row["fid"] for row in found.values()}) == 4
    for kind in ("parallel", "best"):
        assert Image.open(finished / f"Plots/sweep_light-testing_{kind}.png").size[0] > 500


def test_the_same_command_again_trains_nothing_and_says_the_same(finished, capsys):
    before, files = states(finished), {path: path.stat().st_mtime_ns for path in finished.rglob("*.p*t*")}
    here(*GRID, "--seeds", 2, "--out", finished)
    said = capsys.readouterr().out
    assert states(finished) == before == ["COMPLETE"] * 4
    assert files == {path: path.stat().st_mtime_ns for path in files}
    assert "FID" in said and "± " in said and "over 2 seeds" in said and "4 complete, 0 to do" in said
    assert f"{finished}/Plots/sweep_light-testing_best.png" in said


def test_more_seeds_and_presets_add_only_what_is_missing(tmp_path, pretend):
    here("--presets", "light", "--seeds", 1, "--name", "grows", "--out", tmp_path)
    here("--presets", "default,light", "--seeds", 2, "--name", "grows", "--out", tmp_path)
    assert [run.name for run in pretend] == ["light_seed_0", "default_seed_0", "default_seed_1", "light_seed_1"]


def test_a_changed_setting_is_not_mixed_into_an_old_sweep(tmp_path, pretend, capsys):
    here("--presets", "light", "--seeds", 1, "--out", tmp_path)
    here("--presets", "light", "--seeds", 1, "--out", tmp_path, "--epochs", 2, code=2)
    assert "was begun with epochs 1, not 2" in capsys.readouterr().err and len(pretend) == 1


# --- Workers ---


def said_done(text):
    """The trials that a worker says it has finished."""
    return set(re.findall(r"^(\w+): FID", text, re.MULTILINE)) - {"light", "testing"}


@pytest.mark.slow
def test_a_worker_that_comes_later_shares_the_work(tmp_path, capsys):
    other = start(*GRID, "--seeds", 1, "--out", tmp_path)
    while other.poll() is None and not list(tmp_path.rglob("state.pt")):
        time.sleep(0.1)
    other.send_signal(signal.SIGSTOP)  # so that it is slower than we are
    here(*GRID, "--seeds", 1, "--out", tmp_path)
    other.send_signal(signal.SIGCONT)
    ours, theirs = said_done(capsys.readouterr().out), said_done(other.communicate(timeout=120)[0])
    assert other.returncode == 0 and ours == {"testing_seed_0"} and theirs == {"light_seed_0"}
    assert states(tmp_path) == ["COMPLETE"] * 2


@contextlib.contextmanager
def meanwhile(begins, rival):
    """Let a rival act once, just before a statement that begins so is executed."""
    rivals = [rival]

    def listen(connection, cursor, statement, *rest):
        if rivals and statement.strip().startswith(begins):
            rivals.pop()()

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", listen)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", listen)
    assert not rivals


def test_workers_that_make_the_same_database_at_the_same_moment_are_not_in_the_way(tmp_path, monkeypatch):
    url, waited = f"sqlite:///{tmp_path}/trials.db", []
    monkeypatch.setattr(time, "sleep", waited.append)
    with meanwhile("CREATE TABLE studies", lambda: trials.Storage(url)):
        assert trials.open_storage(url).get_all_studies() == [] and waited == [1]


def test_workers_that_ask_at_the_same_moment_do_not_take_the_same_trial(tmp_path):
    ours, theirs = (trials.Storage(f"sqlite:///{tmp_path}/trials.db") for _ in range(2))
    study, got = optuna.create_study(storage=ours), []
    study.enqueue_trial({})
    rival = threading.Thread(target=lambda: got.append(theirs.set_trial_state_values(1, TrialState.RUNNING)))
    with meanwhile("UPDATE trials", lambda: (rival.start(), rival.join(0.5))):  # it has to wait until we are done
        assert study.ask().number == 0
    rival.join()
    assert got == [False]


def test_kill_9_costs_a_worker_only_its_own_trial(tmp_path, monkeypatch, capsys):
    words = ["--presets", "light", "--seeds", 3, *QUICK, "--limit-steps", 8, "--save-every", 0, "--out", tmp_path]
    folder = tmp_path / "runs/sweeps/light"
    first, second = (folder / f"light_seed_{seed}" for seed in (0, 1))
    worker = start(*words)
    while worker.poll() is None and not (second / "weights_0.pth").exists():
        time.sleep(0.05)
    losses = lambda: len(files.load(second / "state.pt")["trainer"]["losses"])
    while worker.poll() is None and not losses():
        time.sleep(0.01)
    worker.send_signal(signal.SIGSTOP)
    here(*words)  # while it lives, the two share the work
    said, reached = capsys.readouterr().out, losses()
    assert states(tmp_path, "light") == ["COMPLETE", "RUNNING", "COMPLETE"] and 0 < reached < 8
    assert said_done(said) == {"light_seed_2"} and "2 complete, 1 to do" in said
    assert f"{trials.GRACE} s after its last sign of life" in said
    worker.send_signal(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    worker.communicate()
    kept = {path: path.stat().st_mtime_ns for path in [*first.iterdir(), second / "weights_0.pth"]}
    monkeypatch.setattr(trials, "GRACE", 1)
    time.sleep(2.1)  # the database counts whole seconds
    here(*words)
    assert states(tmp_path, "light") == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # it went on with what was there
    assert {row["step"] for row in rows(tmp_path, "light").values()} == {8}
    assert not list(folder.glob("*.1"))


def test_a_signal_saves_tells_what_is_done_and_leaves_the_rest_for_the_next(tmp_path, monkeypatch, capsys):
    record = sweep.Run.record

    def struck(run, epoch, **scores):
        record(run, epoch, **scores)
        if epoch == 0 and run.config.seed == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sweep.Run, "record", struck)
    monkeypatch.setattr(sys, "argv", ["src", "sweep", "--presets", "light"])
    words = ["--presets", "light", "--seeds", 2, *QUICK, "--out", tmp_path]
    here(*words, code=128 + signal.SIGTERM)
    said = capsys.readouterr().out
    assert "1 complete, 1 to do" in said and "stopped by SIGTERM" in said
    assert said.strip().endswith("python src sweep --presets light --resume")
    assert rows(tmp_path, "light")["light_seed_1"]["state"] == "interrupted"
    here(*words, "--resume")
    assert states(tmp_path, "light") == ["COMPLETE", "FAIL", "COMPLETE"]


@pytest.mark.parametrize("age, attempts", [(1, 1), (trials.GRACE + 1, 2)])
def test_a_worker_on_another_machine_is_dead_when_it_was_silent_for_long(tmp_path, pretend, capsys, age, attempts):
    here("--presets", "light", "--seeds", 1, "--out", tmp_path)
    study = study_of(tmp_path, "light")
    study.enqueue_trial({}, user_attrs={"cell": "light_seed_1", "preset": "light", "seed": 1})
    study.ask()  # and there the worker died: before optuna took its first heartbeat
    with sqlite3.connect(tmp_path / "runs/sweeps/light/trials.db") as database:
        database.execute(f"UPDATE trial_heartbeats SET heartbeat = datetime('now', '-{age} seconds')")
    here("--presets", "light", "--seeds", 2, "--out", tmp_path)
    assert len(pretend) == attempts
    assert states(tmp_path, "light")[1:] == {1: ["RUNNING"], 2: ["FAIL", "COMPLETE"]}[attempts]
    assert "2 complete" in capsys.readouterr().out or attempts == 1


def test_a_cell_that_another_machine_queued_too_is_trained_once(tmp_path, pretend):
    here("--presets", "light", "--seeds", 1, "--out", tmp_path)
    study = study_of(tmp_path, "light")
    for seed in (0, 1, 1, 1):
        study.enqueue_trial({}, user_attrs={"cell": f"light_seed_{seed}", "preset": "light", "seed": seed})
    here("--presets", "light", "--seeds", 3, "--out", tmp_path)
    assert sorted(run.name for run in pretend) == ["light_seed_0", "light_seed_1", "light_seed_2"]
    assert [row["state"] for row in rows(tmp_path, "light").values()] == ["complete"] * 3


def test_a_result_that_comes_after_its_worker_was_given_up_is_dropped(tmp_path, pretend, monkeypatch):
    trained = sweep.trained

    def late(*args):
        if len(pretend) == 0:  # another worker takes this one for dead meanwhile
            study_of(tmp_path, "light").tell(0, state=TrialState.FAIL)
        return trained(*args)

    monkeypatch.setattr(sweep, "trained", late)
    here("--presets", "light", "--seeds", 1, "--out", tmp_path)
    assert states(tmp_path, "light") == ["FAIL", "COMPLETE"] and len(pretend) == 2


def test_a_database_keeps_a_sweep_too(tmp_path, pretend):
    words = ["--presets", "light", "--storage", f"sqlite:///{tmp_path}/sweeps.db", "--out", tmp_path]
    here(*words, "--seeds", 2)
    here(*words, "--seeds", 3)
    assert [run.name for run in pretend] == [f"light_seed_{seed}" for seed in range(3)]
    assert not list(tmp_path.rglob("trials.db"))


# --- The search ---


def searched(out, pretend, *words, fields="lr,timesteps,hidden"):
    pretend.clear()
    here("--search", fields, "--name", "s", "--out", out, *words)
    return [(run.config.lr, run.config.timesteps, run.config.hidden) for run in pretend]


def test_a_search_is_a_function_of_its_seed_and_may_be_broken_off(tmp_path, pretend):
    whole = searched(tmp_path / "a", pretend, "--trials", 13)  # the first ten are random, then TPE begins
    broken = [each for n in (3, 11, 13) for each in searched(tmp_path / "b", pretend, "--trials", n)]
    assert whole == broken and len(set(whole)) == 13
    assert set(whole).isdisjoint(searched(tmp_path / "c", pretend, "--trials", 4, "--seed", 1))
    lrs, timesteps, _ = zip(*whole)
    assert all(5e-5 <= lr <= 5e-3 for lr in lrs) and all(100 <= t <= 2000 for t in timesteps)
    found = rows(tmp_path / "a", "s")
    assert [row["fid"] for row in found.values()] == sorted(row["fid"] for row in found.values())
    assert set(found["trial_0"]["settings"]) == {"lr", "timesteps", "hidden"}


def test_a_search_trains_for_real(tmp_path):
    here("--search", "lr,hidden", "--trials", 2, *QUICK, "--out", tmp_path)
    for name, row in rows(tmp_path, "default-lr-hidden").items():
        config = json.loads((tmp_path / "runs/sweeps/default-lr-hidden" / name / "config.json").read_text())
        settings = row["settings"]
        assert config["lr"] == settings["lr"] and config["seed"] == 0
        assert config["hidden"] == [int(width) for width in settings["hidden"].split(",")]
        assert row["state"] == "complete"


def test_a_killed_trial_of_a_search_is_tried_again_with_the_same_settings(tmp_path, pretend, monkeypatch):
    trained = sweep.trained

    def killed(*args):
        if len(pretend) == 1:
            raise OSError("a full disk")
        return trained(*args)

    monkeypatch.setattr(sweep, "trained", killed)
    words = ["--search", "lr,timesteps,hidden", "--name", "s", "--out", tmp_path, "--trials", 12]
    here(*words, code=1)
    drawn = rows(tmp_path, "s")["trial_1"]
    assert drawn["state"] == "interrupted" and drawn["settings"]
    monkeypatch.setattr(sweep, "trained", trained)
    here(*words)  # at the end, where TPE would draw something else
    row, config = rows(tmp_path, "s")["trial_1"], pretend[-1].config
    assert row["state"] == "complete" and row["settings"] == drawn["settings"] and len(pretend) == 12
    assert (config.lr, config.timesteps) == (row["settings"]["lr"], row["settings"]["timesteps"])


def test_a_combination_that_cannot_be_fails_and_the_search_goes_on(tmp_path, pretend, capsys):
    searched(tmp_path, pretend, "--trials", 12, fields="schedule,target")
    found = rows(tmp_path, "s").values()
    assert {row["state"] for row in found} == {"complete", "failed"} and len(found) == 12
    for row in found:
        impossible = row["settings"]["target"] == "eps" and row["settings"]["schedule"] != "linear"
        assert (row["state"] == "failed") == impossible == ("alpha = 0" in row.get("error", ""))
    assert "failed: target 'eps'" in capsys.readouterr().out
    assert searched(tmp_path, pretend, "--trials", 12, fields="schedule,target") == []  # not tried again


def test_a_trial_that_diverges_fails_for_good(tmp_path, pretend, monkeypatch):
    def diverged(run, judge, args):
        pretend.append(run)
        raise Failure("the loss is nan")

    monkeypatch.setattr(sweep, "trained", diverged)
    for _ in range(2):
        here("--presets", "light", "--seeds", 2, "--out", tmp_path)
    assert len(pretend) == 2 and rows(tmp_path, "light")["light_seed_0"]["error"] == "the loss is nan"


# --- Mistakes, and pictures ---


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "one of the arguments --presets --search is required"),
        (["--presets", "light,tseting"], "did you mean 'testing'"),
        (["--search", "lr,hiden"], "did you mean 'hidden'"),
        (["--search", "lr", "--preset", "defualt"], "did you mean 'default'"),
        (["--presets", "light", "--search", "lr"], "not allowed with argument"),
        (["--search", "lr", "--lr", "0.1"], "--lr is what is searched"),
        (["--search", "lr", "--seeds", "2"], "--seeds goes with --presets"),
        (["--presets", "light", "--trials", "2"], "--trials goes with --search"),
        (["--search", "activation", "--preset", "ddpm_unet"], "has no choice of activation"),
        (["--presets", "light", "--seeds", "0"], "'0' is not an integer of at least 1"),
        (["--presets", "default,testing", "--steps", "101"], "steps must be a whole number from 1 to 100"),
        (["--presets", "light", "--name", "../x"], "letters, digits"),
        (["--presets", "light", "--trails", "2"], "did you mean '--trials'"),
        (["--presets", "light", "--dataset", "mnist"], "did you mean 'MNIST'"),
    ],
)
def test_wrong_input_is_one_sentence_exit_code_2_and_nothing_written(tmp_path, capsys, words, says):
    here(*words, "--out", tmp_path, code=2)
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["nosuch://x", "sqlite:////no/such/folder/x.db", "sqlite:///text", "text"])
def test_a_storage_that_cannot_be_opened_is_one_sentence(tmp_path, capsys, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    Path("text").write_text("this is\nno database" * 100)
    here("--presets", "light", "--storage", where, "--out", tmp_path, code=2)
    said = capsys.readouterr().err
    assert ("--storage cannot be opened: " in said or "say sqlite:///text" in said) and said.count("\n") == 1
    assert Path("text").read_text() == "this is\nno database" * 100 and len([*tmp_path.iterdir()]) == 1


def test_a_launcher_of_several_processes_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    here("--presets", "light", "--out", tmp_path, code=2)
    assert "start the command several times" in capsys.readouterr().err


def test_a_folder_is_gone_on_with_only_if_it_holds_the_same_config(tmp_path, pretend):
    config = sweep.DDPM["light"]
    found = [json.dumps(asdict(each)) for each in (config, config.replace(lr=1.0))]
    for name, text in zip("abc", [*found, "{"]):
        folder = tmp_path / f"runs/sweeps/{name}/light_seed_0"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(text)
    for name in "abcd":
        here("--presets", "light", "--seeds", 1, "--name", name, "--out", tmp_path)
    assert [run.options.resume for run in pretend] == [True, False, False, False]
