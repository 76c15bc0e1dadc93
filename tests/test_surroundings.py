"""What is around a command and is not its own: notebooks, terminals, encodings, disks."""

import errno
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import optuna
import pytest
import torch

import part_1
import part_2
import training_grounds
from diffusion import configure, files, load
from diffusion.api import model as api
from diffusion.cli import demo, generate, quickstart, sweep, train, weights
from diffusion.data.datasets import load as load_data
from diffusion.errors import UserError
from diffusion.experiment import recipe, strict_yaml
from diffusion.laboratory import flags, options
from diffusion.laboratory.folder import Folder
from diffusion.metrics import scores
from diffusion.metrics.features import extractor_for

SRC = Path(__file__).parents[1] / "src"


def run(*words: object, env: dict[str, str] | None = None, **settings) -> subprocess.CompletedProcess:
    """Python with our sources, as a process of its own."""
    env = os.environ | {"PYTHONPATH": str(SRC)} | (env or {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.run([sys.executable, *map(str, words)], env=env, timeout=120, **pipes | settings)


# --- Notebooks ---


def test_a_notebooks_backend_style_and_figures_are_left_alone(tmp_path):
    from matplotlib import pyplot, rcParams, use

    from diffusion import figures

    use("svg")
    mine, style = pyplot.figure(), dict(rcParams)
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("lr", 1, 2), n_trials=3)
    try:
        figures.losses([1.0, 2.0], 1, tmp_path / "losses.png", "")
        figures.curve([0, 1], [2.0, 1.0], None, tmp_path / "curve.png", "", "FID", 0.5)
        assert len([*figures.trials(study, tmp_path / "sweep"), *tmp_path.glob("[lc]*.png")]) == 4
        assert pyplot.get_backend() == "svg" and dict(rcParams) == style
        assert pyplot.get_fignums() == [mine.number] and pyplot.gcf() is mine
    finally:
        pyplot.close("all")
        use("agg")


def test_importing_figures_chooses_no_backend():
    code = "import matplotlib; matplotlib.use('svg'); import diffusion.figures; print(matplotlib.get_backend())"
    assert run("-c", code).stdout == "svg\n"
    code = "import sys; import diffusion.figures; print('matplotlib.pyplot' in sys.modules)"
    assert run("-c", code).stdout == "False\n"


# --- Disks ---


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "a folder")))
    assert files.save(tmp_path / "x.pth", 3).exists() and files.load(tmp_path / "x.pth") == 3


def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path):
    (tmp_path / "cache").write_text("in the way")
    extractor = extractor_for("mnist", SRC.parent / "weights")
    with pytest.warns(UserWarning, match="are not kept for the next time"):
        assert scores.Reference.of(extractor, torch.zeros(3, 1, 28, 28), tmp_path / "cache").n == 3


@pytest.mark.parametrize(("number", "held"), [(errno.ENOSYS, 0), (errno.ENOLCK, 0), (errno.EWOULDBLOCK, 1)])
def test_only_a_lock_that_would_block_is_held(tmp_path, monkeypatch, capsys, number, held):
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(number, os.strerror(number))))
    folder = Folder(tmp_path / f"run_{number}")
    if held:
        with pytest.raises(UserError, match="another process is training"):
            folder.take()
    else:
        folder.take()
        assert "there are no locks" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["file", "read-only"])
@pytest.mark.parametrize("read", [demo.read, train.read, weights.read], ids=["demo", "train", "weights"])
def test_an_output_folder_that_takes_no_files_is_refused_first(tmp_path, capsys, read, what):
    place = tmp_path / "place"
    place.touch() if what == "file" else place.mkdir(mode=0o555)
    place = place if what == "file" or os.geteuid() else Path("/proc")  # root may write what is read-only
    with pytest.raises(SystemExit) as stop:
        read(["--out", str(place / "new")])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and "--out: " in err and "cannot be" in err


WRITERS = {  # what a command writes in --out besides runs/
    "part_1": (part_1.read, ["1", "default"], ("Plots", "contents")),
    "part_2": (part_2.read, ["1", "default_7", "row"], ("Plots", "contents_custom")),
    "training_grounds": (training_grounds.read, ["1", "default", "no"], ()),
    "train": (train.read, ["--steps", "1"], ("Plots", "contents")),
    "quickstart": (quickstart.read, [], ("Plots", "contents")),
    "sweep": (sweep.read, ["--search", "lr"], ("Plots",)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_of_pictures_that_takes_no_files_is_refused_first(tmp_path, capsys, name):
    read, words, writes = WRITERS[name]
    for folder in ("runs", "Plots", "contents", "contents_custom"):
        out = tmp_path / folder
        out.mkdir()
        (out / folder).touch()  # in the way
        if folder not in ("runs", *writes):
            read([*words, "--out", str(out)])
            continue
        with pytest.raises(SystemExit):
            read([*words, "--out", str(out)])
        assert f"/{folder}' cannot be a folder" in capsys.readouterr().err


def test_a_default_output_is_checked_too(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples.png").mkdir()
    with pytest.raises(SystemExit):
        generate.read(["--weights", "unet"])
    assert "--out: 'samples.png': no file can be written there" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["/dev/null", f"{'x' * 300}.png"])
def test_a_device_or_an_impossible_name_is_no_output_file(tmp_path, name):
    assert not options.can_write(tmp_path / name)


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind in (options.path, options.directory, options.output_directory, options.output_file()):
        assert kind("~/below/x") == tmp_path / "below/x"
    assert not [name for name, flag in flags.FLAGS.items() if flag.get("type") is Path]
    model = configure(hidden=(4,))
    assert model.save("~/x.pth") == tmp_path / "x.pth" and load("~/x.pth").config == model.config
    assert files.load("~/x.pth")["format"] and files.load(Path("~/x.pth"))["format"]
    (tmp_path / "data").symlink_to(SRC.parent / "data")
    (tmp_path / "weights").symlink_to(SRC.parent / "weights")
    (tmp_path / "a.yaml").write_text("preset: unet_fast\n")
    assert len(load_data("MNIST", "test", "~/data")) == 10_000
    assert recipe.read(Path("~/a.yaml")).name == "a"
    extractor = extractor_for("~/weights/classifier_MNIST.pth")
    assert extractor_for("mnist", "~/weights").sha256 == extractor.sha256
    scores.Reference.of(extractor, torch.zeros(3, 1, 28, 28), "~/cache")
    assert len([*(tmp_path / "cache").iterdir()]) == 1 and not Path("~").exists()


# --- Encodings ---


def test_yaml_is_utf_8_whatever_the_locale_says(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeffwords: Fréchet ± 3\n".encode())
    code = "import sys; from pathlib import Path; from diffusion.experiment import strict_yaml; "
    code += "print(ascii(strict_yaml.read(Path(sys.argv[1]))))"
    answer = run("-X", "utf8=0", "-c", code, path, env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"})
    assert answer.stdout == "{'words': 'Fr\\xe9chet \\xb1 3'}\n"
    assert strict_yaml.read(path) == {"words": "Fréchet ± 3"} and "preset: unet" in recipe.recipe("a", {}).text()


TALK = r"""
import sys
from diffusion.errors import UserError
from diffusion.laboratory.options import run_command
def main(argv):
    print("FID 3 ± 1 – \udce9", flush=True)
    print("aside ±", file=sys.stderr, flush=True)
    if "wrong" in sys.argv: raise UserError("no – such thing")
run_command(main)
"""


def test_want_of_memory_is_a_sentence(capsys):
    for draw in (lambda argv: torch.empty(10**15), lambda argv: bytearray(10**15)):
        with pytest.raises(SystemExit) as stop:
            options.run_command(draw)
        assert stop.value.code == 1
        err = capsys.readouterr().err
        assert err.startswith("error: there is not enough memory") and err.count("\n") == 1
    with pytest.raises(RuntimeError, match="something else"):
        options.run_command(lambda argv: (_ for _ in ()).throw(RuntimeError("something else")))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize(("words", "code"), [((), 0), (("wrong",), 2)])
def test_a_letter_that_an_encoding_lacks_is_no_error(encoding, words, code):
    answer = run("-c", TALK, *words, env={"PYTHONIOENCODING": encoding}, text=False)
    assert answer.returncode == code and answer.stdout.startswith(b"FID 3 ")
    assert b"Traceback" not in answer.stderr and answer.stderr.count(b"\n") == 1 + bool(words)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("words", "code"), [((), 0), (("wrong",), 2)])
def test_closed_streams_are_no_error_and_nobody_elses(closed, words, code):
    shell = ["sh", "-c", f'"$0" "$@" {closed}', sys.executable, "-c", TALK, *words]
    env = os.environ | {"PYTHONPATH": str(SRC)}
    answer = subprocess.run(shell, env=env, capture_output=True, text=True, timeout=60)
    assert answer.returncode == code and "Traceback" not in answer.stderr + answer.stdout
    assert "error" not in answer.stdout  # a closed stderr is not the other stream


# --- The first seconds ---


@pytest.mark.parametrize("seconds", [0.5, 1])
@pytest.mark.parametrize("words", [("src", "train", "--steps", "9"), ("src/part_1.py", "1", "default")], ids=str)
def test_ctrl_c_in_the_first_seconds_is_silent(tmp_path, words, seconds):
    command = [sys.executable, str(SRC.parent / words[0]), *words[1:], "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_nothing_is_imported_before_ctrl_c_is_silent():
    code = "import collections.abc, importlib, os, signal, sys; before = set(sys.modules); "
    code += "from diffusion.laboratory.stopping import importing; print(sorted(set(sys.modules) - before))"
    rooms = ["diffusion", "diffusion.laboratory", "diffusion.laboratory.stopping"]
    assert run("-S", "-c", code).stdout == f"{rooms}\n"


@pytest.mark.parametrize(
    "settings",
    [
        {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"},
        {"LOCAL_RANK": "0"},
        {"LOCAL_RANK": "x"},
        {"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"},
        {"ACCELERATE_USE_MEGATRON_LM": "true"},
        {"ACCELERATE_MIXED_PRECISION": "fp8"},
        {"ACCELERATE_DYNAMO_BACKEND": "no-such"},
    ],
    ids=str,
)
def test_a_launchers_settings_that_do_not_fit_are_answered_with_a_sentence(settings):
    code = "from diffusion.laboratory.launch import open_accelerator as o\n"
    code += "from diffusion.laboratory.options import run_command\nrun_command(lambda argv: o('cpu') and 0)"
    answer = run("-c", code, env=settings)
    assert answer.returncode == 2 and answer.stderr.startswith("error: the launcher's settings"), answer.stderr


@pytest.mark.parametrize(
    "rank, words", [("x", (SRC, "train", "--steps", "1")), ("", (SRC / "part_1.py", "1", "default"))], ids=str
)
def test_a_rank_that_is_no_number_is_answered_before_a_library_reads_it(rank, words):
    answer = run(*words, env={"LOCAL_RANK": rank})
    said = f"error: the launcher's settings do not fit: LOCAL_RANK is a number from 0, not {rank!r}\n"
    assert (answer.returncode, answer.stderr) == (2, said)


def test_a_trajectory_keeps_only_the_states_it_returns(monkeypatch):
    kept, every, states = [], [], api.trajectory

    def watched(*args, **settings):
        for state in states(*args, **settings):
            every.append(weakref.ref(state))
            kept.append(sum(each() is not None for each in every))
            yield state

    monkeypatch.setattr(api, "trajectory", watched)
    assert len(configure(hidden=(4,)).trajectory(2, steps=20, snapshots=3)) == 3
    assert len(every) == 21 and max(kept) <= 3 + 2  # and the two that are at work
