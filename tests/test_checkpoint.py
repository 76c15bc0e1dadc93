"""Files are whole or absent, and nothing in them is ever run."""

import math
import os
import pickle
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from diffusion import files
from diffusion.api.model import configure
from diffusion.errors import Failure, UserError
from diffusion.experiment.build import build
from diffusion.experiment.config import Config
from diffusion.experiment.weights import find_weights, load_weights, save_weights

TINY = Config(hidden=(3, 3), timesteps=5, dataset="MNIST")


def test_save_and_load_are_inverse(tmp_path):
    content = {"a": torch.randn(3), "b": [1, "two", None, 0.5]}
    back = files.load(files.save(tmp_path / "deep" / "x.pt", content))
    assert torch.equal(back["a"], content["a"]) and back["b"] == content["b"]
    assert os.listdir(tmp_path / "deep") == ["x.pt"]


def test_numbers_of_numpy_are_plain_data_and_its_arrays_of_objects_are_not(tmp_path):
    numbers = {"loss": np.float64(0.5), "n": np.int32(3), "losses": np.arange(3.0), "right": np.array([True])}
    torch.save(numbers, tmp_path / "x.pt")
    back = files.load(tmp_path / "x.pt")
    assert all(np.array_equal(back[name], value) for name, value in numbers.items())
    torch.save({"x": np.array([Bomb()], dtype=object)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="could run code"):
        files.load(tmp_path / "x.pt")


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(UserError, match="is a folder: name a file in it"):
        configure(hidden=(3,)).save(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_flipped_bit_is_noticed(tmp_path):
    """torch reads what the archive holds, whatever its checksums say."""
    path = files.save(tmp_path / "x.pt", {"a": torch.arange(1000.0)})
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(1000.0).numpy().tobytes()) + 999] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="cut short or damaged"):
        files.load(path)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = files.save(tmp_path / "x.pt", {"a": 1})

    def full_disk(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_atomically(path, full_disk)
    assert files.load(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.pt"]


def test_a_write_that_stops_in_the_middle_is_an_oserror_and_keeps_the_old_file(tmp_path):
    path = files.save(tmp_path / "x.pt", {"a": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # as a full disk; Python ignores its signal
    try:
        with pytest.raises(OSError):
            files.save(path, {"a": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files.load(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.pt"]


# Imports torch once, then has one child after the other that saves in a tight loop.
SAVING = """
import os, sys, torch
from diffusion import files
for path in sys.argv[1:]:
    if child := os.fork():
        print(child, flush=True)
        os.waitpid(child, 0)
    else:
        for i in range(10**6):
            files.save(path, {"i": i, "x": torch.full((300_000,), float(i))})
"""


def test_kill_9_in_a_save_leaves_the_old_or_the_new_file(tmp_path):
    """What is there always loads, and is one of the whole states."""
    waits = {tmp_path / "a.pt": 0.05, tmp_path / "b.pt": 0.17, tmp_path / "c.pt": 0.31}
    command = [sys.executable, "-c", SAVING, *map(str, waits)]
    env = {**os.environ, "PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as parent:
        for path, wait in waits.items():
            child = int(parent.stdout.readline())
            while not path.exists():
                time.sleep(0.01)
            time.sleep(wait)
            os.kill(child, signal.SIGKILL)
    assert parent.returncode == 0
    for path in waits:
        content = files.load(path)
        assert (content["x"] == content["i"]).all()


def test_an_experiment_comes_back_as_it_was(tmp_path):
    experiment = build(TINY)
    experiment.about = {"epoch": 3, "holds": "ema", "scores": {"fid": 1.5}}
    save_weights(tmp_path / "w.pth", experiment)
    back = load_weights(find_weights("w", [tmp_path]))
    assert back.config == TINY and back.about == {"epoch": 3, "holds": "ema", "scores": {"fid": 1.5}}
    x, t = torch.randn(2, 1, 28, 28), torch.rand(2)
    assert torch.equal(back.denoiser(x, t), experiment.denoiser(x, t))


def test_building_is_a_function_of_the_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    a, b, c = build(TINY), build(TINY), build(TINY.replace(seed=1))
    assert torch.equal(torch.rand(3), expected)
    weight = lambda e: e.denoiser.network.blocks[0].net[0].weight
    assert torch.equal(weight(a), weight(b)) and not torch.equal(weight(a), weight(c))


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


@pytest.fixture
def nobody():
    """A person who may not read what root has written."""
    if root := os.geteuid() == 0:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)


@pytest.mark.parametrize("what", ["w.pth", "."])
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, what, request):
    path = save_weights(tmp_path / "w.pth", build(TINY))
    (tmp_path / what).chmod(0)
    request.getfixturevalue("nobody")
    for read in (load_weights, lambda path: find_weights(str(path), []) and load_weights(path)):
        with pytest.raises(UserError, match="w.pth' cannot be read: permission denied$"):
            read(path)


def test_a_damaged_file_in_the_old_format_that_points_nowhere_is_called_damaged(tmp_path, monkeypatch):
    path = files.save(tmp_path / "w.pth", {"a": 1})
    monkeypatch.setattr(torch, "load", lambda *_, **__: os.lseek(os.open(path, os.O_RDONLY), -1, os.SEEK_SET))
    with pytest.raises(UserError, match="damaged"):
        files.load(path)


def test_a_disk_that_fails_is_not_called_damaged():
    with pytest.raises(UserError, match="cannot be read: input/output error"):
        files.load("/proc/self/mem")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_a_file_too_large_for_the_memory_is_not_called_damaged(tmp_path, monkeypatch, error):
    path = files.save(tmp_path / "w.pth", {"a": 1})
    monkeypatch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(Failure, match="there is not enough memory to read"):
        files.load(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_in_one_sentence(tmp_path, value):
    experiment = build(TINY)
    path = save_weights(tmp_path / "w.pth", experiment)
    content = files.load(path)
    content["network"]["blocks.1.net.0.bias"][1] = value
    files.save(path, content)
    with pytest.raises(Failure, match="'blocks.1.net.0.bias' is not finite everywhere"):
        load_weights(path)
    with torch.no_grad():
        experiment.denoiser.network.blocks[1].net[0].bias[1] = value
    with pytest.raises(Failure, match="'blocks.1.net.0.bias' is not finite"):
        save_weights(tmp_path / "new.pth", experiment)
    assert not (tmp_path / "new.pth").exists()


def test_weights_beyond_float16_are_not_halved_to_infinity(tmp_path):
    experiment = build(TINY)
    with torch.no_grad():
        experiment.denoiser.network.blocks[1].net[0].bias[1] = 1e5
    save_weights(tmp_path / "whole.pth", experiment)
    with pytest.raises(Failure, match="'blocks.1.net.0.bias' is not finite"):
        save_weights(tmp_path / "half.pth", experiment, half=True)


def test_samples_that_are_not_finite_are_no_pictures():
    model = configure(hidden=(3, 3), timesteps=5)
    with torch.no_grad():
        model.experiment.denoiser.network.blocks[-1].bias.fill_(1e38)
    for sampler in ("ddpm", "ddim"):
        with pytest.raises(Failure, match="NaN or infinite"):
            model.sample(2, sampler=sampler, clip=False)


def test_edits_that_are_not_finite_are_no_pictures_either():
    model, images, how = configure(hidden=(3, 3), timesteps=20), torch.rand(2, 1, 28, 28), {"clip": False}
    x_t, _ = model.forward_diffusion(images, 0.5)
    with torch.no_grad():
        model.experiment.denoiser.network.blocks[-1].bias.fill_(1e38)
    for draw in (
        lambda: model.edit.inpaint(images, torch.ones(28, 28), steps=20, resample=2, **how),
        lambda: model.edit.vary(images, 0.5, **how),
        lambda: model.edit.interpolate(1, 2, count=2, steps=20, **how),
        lambda: model.edit.invert(images, steps=20, **how),
        lambda: model.edit.reconstruct(images, steps=20, **how),
        lambda: model.trajectory(2, steps=20, **how),
        lambda: model.restore(images, steps=20, **how),
        lambda: model.denoise(x_t * 1e38, 0.5, **how),
        lambda: model.predict_noise(x_t * 1e38, 0.5),
        lambda: model.bits_per_dim(images, steps=5),
    ):
        with pytest.raises(Failure, match="NaN or infinite"):
            draw()


def spoil(path, how):
    """Make a good file into a bad one."""
    good = path.read_bytes()
    if how == "truncated":
        path.write_bytes(good[: len(good) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("these are not the weights you are looking for")
    elif how == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif how == "code":
        torch.save({"config": Bomb()}, path)
    elif how == "other":
        torch.save({"weights": torch.zeros(3)}, path)
    elif how == "list":
        torch.save([1, 2], path)
    elif how == "absent":
        path.unlink()
    elif how in ("architecture", "setting", "value"):
        content = torch.load(path, weights_only=True)
        change = {"architecture": ("hidden", (5, 5)), "setting": ("tmesteps", 5), "value": ("lr", "fast")}[how]
        content["config"][change[0]] = change[1]
        torch.save(content, path)
    elif how in ("network", "about", "process"):
        torch.save(torch.load(path, weights_only=True) | {how: None}, path)
    elif how == "numbers":
        content = torch.load(path, weights_only=True)
        torch.save(content | {"network": dict.fromkeys(content["network"], 0.5)}, path)


@pytest.mark.parametrize(
    "how, says",
    [
        ("truncated", "cut short"),
        ("empty", "cut short"),
        ("text", "not a weight file"),
        ("pickle", "not"),
        ("code", "could run code"),
        ("other", "not a weight file"),
        ("list", "not a weight file"),
        ("absent", "no file"),
        ("network", "'network' is missing"),
        ("process", "'process' is missing"),
        ("about", "'about' is missing"),
        ("numbers", "do not fit"),
        ("architecture", "do not fit"),
        ("setting", "did you mean 'timesteps'"),
        ("value", "setting 'lr'"),
    ],
)
def test_a_bad_weight_file_gives_one_sentence_and_runs_nothing(tmp_path, monkeypatch, how, says):
    monkeypatch.chdir(tmp_path)
    path = save_weights(tmp_path / "w.pth", build(TINY))
    spoil(path, how)
    with pytest.raises(UserError, match=says) as caught:
        load_weights(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert not (tmp_path / "exploded").exists()


SHORT = {
    "unet": "unet",
    "unet.pth": "unet",
    "default": "ddpm_mnist_100_default",  # the longest training, though 20 comes after 100 in the alphabet
    "default@20": "ddpm_mnist_20_default",
    "ddpm_unet": "ddpm_mnist_5_ddpm_unet",
    "ddpm_mnist_20_default.pth": "ddpm_mnist_20_default",
    "cold_unet row": "custom_mnist_8_row_cold_unet",
    "cold_unet@12": "custom_mnist_12_col_cold_unet",  # only one axis has that epoch
    "default_7": "custom_mnist_80_row_default_7",  # only one axis is there
    "default_28 row@40": "custom_mnist_40_row_default_28",
    "default_28 col": "custom_mnist_80_col_default_28",
}
OTHERS = ("classifier_MNIST", "custom_mnist_40_col_default_28", "custom_mnist_80_row_default_28")


@pytest.fixture
def shelf(tmp_path):
    for name in (*SHORT.values(), *OTHERS):
        (tmp_path / f"{name}.pth").touch()
    return tmp_path


@pytest.mark.parametrize("name", SHORT)
def test_weights_are_found_by_short_names(shelf, name):
    assert find_weights(name, [shelf]) == shelf / f"{SHORT[name]}.pth"


@pytest.fixture
def runs(tmp_path_factory):
    """Makes an empty file in a folder of runs, and says where."""
    folder = tmp_path_factory.mktemp("runs")

    def make(path):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
        return folder / path

    return make


def test_shipped_names_stay_shipped_and_every_file_has_its_path(shelf, runs):
    mine = [
        runs("unet/unet.pth"),
        runs("DDPM_default/ddpm_mnist_200_default.pth"),
        runs("c/custom_mnist_9_col_default_7.pth"),
    ]
    folders = [shelf, *(path.parent for path in mine)]
    for name, file in SHORT.items():
        assert find_weights(name, folders) == shelf / f"{file}.pth"
    for path in mine:
        assert find_weights(str(path), folders) == path
    assert find_weights("default@200", folders) == mine[1] and find_weights("default_7 col", folders) == mine[2]


@pytest.mark.parametrize("run", ["mine", "mine_lr0.5"])
def test_a_run_that_was_put_aside_has_only_its_path(shelf, runs, run):
    new, old, older = runs(f"{run}/{run}.pth"), runs(f"{run}.1/{run}.pth"), runs(f"{run}.12/{run}.pth")
    folders = [shelf, *sorted(path.parent for path in (new, old, older))]
    assert find_weights(run, folders) == new and find_weights(str(old), folders) == old
    new.unlink()
    with pytest.raises(UserError, match=f"unknown weight file '{run}'"):
        find_weights(run, folders)


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("mine", ["a/mine.pth", "b/mine.pth"]),
        ("light", ["a/ddpm_mnist_3_light.pth", "b/ddpm_mnist_50_light.pth"]),
        ("light@3", ["a/ddpm_mnist_3_light.pth", "b/ddpm_mnist_3_light.pth"]),
        ("light", ["a/ddpm_mnist_3_light.pth", "light/light.pth"]),
        ("light", ["a/ddpm_mnist_3_light.pth", "a/light.pth"]),
        ("more_capacity", ["a/custom_mnist_3_row_more_capacity.pth", "b/custom_mnist_3_row_more_capacity.pth"]),
    ],
)
def test_a_name_of_several_files_is_refused_with_their_paths(shelf, runs, name, paths):
    paths = [runs(path) for path in paths]
    folders = [shelf, *(path.parent for path in paths)]
    with pytest.raises(UserError) as caught:
        find_weights(name, folders)
    assert all(str(path) in str(caught.value) for path in paths) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cold_unet", "'cold_unet' is there for both axes: say 'cold_unet row' or 'cold_unet col'"),
        ("default_28@40", "'default_28@40' is there for both axes: say 'default_28 row@40' or 'default_28 col@40'"),
        ("ddpm_mnist_20_defualt", "did you mean 'ddpm_mnist_20_default', "),
        ("cold_unnet row", "did you mean 'cold_unet row', 'cold_unet col', "),
        ("default@30", "did you mean 'default@20', "),
        ("no/such/unet.pth", "unknown weight file 'no/such/unet.pth' "),
        ("classifier_MNIST", "unknown weight file 'classifier_MNIST' "),
    ],
)
def test_a_name_that_is_none_is_answered_with_the_three_nearest_and_where_the_list_is(shelf, name, said):
    with pytest.raises(UserError) as caught:
        find_weights(name, [shelf])
    assert said in str(caught.value)
    if "unknown" in str(caught.value):
        nearest = str(caught.value).split("did you mean")[1]
        assert nearest.count("'") == 6 and "weights/README.md" in nearest


def test_of_no_weights_none_is_suggested(tmp_path):
    with pytest.raises(UserError, match="unknown weight file 'unet' [(]weights/README.md lists"):
        find_weights("unet", [tmp_path])
