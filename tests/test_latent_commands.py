"""`python src` with --model, as a person runs it, on EMNIST from a small archive in its own format."""

import gzip
import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from in_process import DATA, run
from PIL import Image
from test_data import ONE_PER_CLASS, idx
from torchvision.datasets import EMNIST

from diffusion import files
from diffusion.api.model import load
from diffusion.data.datasets import Dataset
from diffusion.data.datasets import load as load_data
from diffusion.experiment.weights import load_weights, save_weights
from diffusion.laboratory import versions
from diffusion.laboratory.classification import Codes, by_importance
from diffusion.laboratory.promotion import promote

CLASSES = ONE_PER_CLASS["balanced"]


def letters(count):
    """Images of bars (the label is where, and how long), as the archive has them: transposed."""
    labels = np.arange(count) % CLASSES
    images = np.zeros((count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels):
        image[label // 2 : label // 2 + 3, 4 : 24 if label % 2 else 14] = 250
    return images.transpose(0, 2, 1), labels


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data folder with an EMNIST archive of 6,000 training and 94 test letters."""
    folder = tmp_path_factory.mktemp("emnist")
    archive = folder / "EMNIST/raw/gzip.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for part, count in (("train", 6016), ("test", 94)):
            for name, array in zip(("images-idx3", "labels-idx1"), letters(count)):
                packed.writestr(f"gzip/emnist-balanced-{part}-{name}-ubyte.gz", gzip.compress(idx(array), 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EMNIST, "md5", hashlib.md5(archive.read_bytes()).hexdigest())
        yield folder


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """Where a vae of the letters and a flow on its latents were trained; what both said."""
    out, said = tmp_path_factory.mktemp("out"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        for words in (
            ("vae", "--hidden", "4,8,8", "--encoder", "4,8,4", "--latent", 6, "--alpha", 0.1, "--lr", 5e-3),
            ("flow", "--hidden", "24,24", "--num-workers", 2),
        ):
            asked = (
                "--dataset",
                "EMNIST",
                "--split",
                "balanced",
                "--root",
                root,
                "--batch-size",
                47,
                "--total-epochs",
                1,
            )
            done = run("src", "train", "--model", *words, *asked, "--promote", "yes")
            assert done.returncode == 0, done.stderr
            said.append(done.stdout)
    return out, said


@pytest.fixture
def there(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    return trained[0]


def ask(mode, *words, code=0):
    done = run("src", mode, *words)
    assert done.returncode == code, done.stderr
    return done


LETTERS = ("--dataset", "EMNIST", "--split", "balanced")


def test_training_by_model_and_data_set_writes_dev_and_promotes_main(there, trained):
    for name, said in zip(("EMNIST-balanced_vae", "EMNIST-balanced_flow"), trained[1]):
        dev, main = there / f"runs/{name}/{name}.pth", there / f"weights/{name}.pth"
        experiment = load_weights(main)
        assert torch.equal(next(experiment.network.parameters()), next(load_weights(dev).network.parameters()))
        assert f"promoted to weights/{name}.pth (yes)" in said and "held-out training images" in said
    assert experiment.config.classes == 47 and experiment.config.codec == "weights/EMNIST-balanced_vae.pth"
    vae = load("weights/EMNIST-balanced_vae.pth").config
    assert (vae.hidden, vae.encoder, vae.latent, vae.kl_weight, vae.lr) == ((4, 8, 8), (4, 8, 4), 6, 0.1, 5e-3)
    assert "encoding 6,016 images" in trained[1][1] and "there are none" in trained[1][1]  # by itself
    history = [json.loads(line) for line in (there / "runs/EMNIST-balanced_vae/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in history] == [0, 1] and history[1]["held_out"] < history[0]["held_out"] / 2


def test_generate_draws_a_grid_of_the_data_sets_flow(there, tmp_path):
    path = tmp_path / "a.png"
    words = (*LETTERS, "--model", "flow", "--height", 2, "--width", 3, "--label", 5, "--steps", 4, "--out", path)
    said = ask("generate", *words, "--autoencoder-version", "main").stdout
    assert "6 samples" in said and Image.open(path).size == (3 * (3 * 29 + 1), 3 * (2 * 29 + 1))
    first = path.read_bytes()
    ask("generate", *words, "--weight", 3, "--diffusion", 0.5)  # the defaults, said
    assert path.read_bytes() == first
    ask("generate", *words, "--diffusion", 2)
    assert path.read_bytes() != first


def test_encode_dataset_writes_latents_with_where_they_come_from(there, root):
    ask("encode-dataset", *LETTERS, "--model", "vae", "--part", "test", "--root", root)
    content = files.load(root / "latents/EMNIST-balanced_test_EMNIST-balanced_vae.pth")
    assert content["posterior"].shape == (94, 12, 1, 1) and content["count"] == 94 and content["split"] == "test"
    assert content["digest"] == load("weights/EMNIST-balanced_vae.pth").experiment.codec.digest
    assert content["labels"].tolist() == [each % 47 for each in range(94)]


def test_latents_of_other_weights_are_made_anew_by_training(there, root, monkeypatch):
    path = root / "latents/EMNIST-balanced_train_EMNIST-balanced_vae.pth"
    fresh = files.load(path)
    for spoil, why in (({"digest": "0" * 16}, "stale"), ({"split": "test"}, "is of EMNIST-balanced test")):
        files.save(path, fresh | spoil)
        words = ("--model", "flow", *LETTERS, "--root", root, "--steps", 1, "--out", there / "other", "--codec")
        done = ask("train", *words, "weights/EMNIST-balanced_vae.pth", "--batch-size", 47, "--promote", "no")
        assert why in done.stdout and files.load(path)["digest"] == fresh["digest"]
        assert torch.equal(files.load(path)["posterior"], fresh["posterior"])


def test_reconstructions_are_drawn_and_measured_by_class(there, root, tmp_path):
    path = tmp_path / "r.png"
    words = (*LETTERS, "--model", "vae", "--root", root, "--no-fid", "--height", 2, "--width", 4, "--out", path)
    said = ask("test-reconstruction", *words).stdout
    assert Image.open(path).size == (3 * (4 * 29 + 1), 3 * (6 * 29 + 1))
    table = [line.split() for line in said.splitlines()[3:]]
    lines = {words[0]: float(words[1]) for words in table if len(words) == 3}
    assert len([name for name in lines if len(name) == 1]) == 47 and 1 < lines["all"] < 60
    ask("test-reconstruction", *LETTERS, "--weights", "latent", "--root", root, "--no-fid", "--out", path)
    refused = ask("test-reconstruction", *LETTERS, "--model", "vae", "--root", root, code=2)
    assert "train-classifier --dataset EMNIST-balanced" in refused.stderr


def test_test_measures_losses_and_labels_by_bayes_rule(there, root, tmp_path):
    words = (*LETTERS, "--root", root, "--picture", tmp_path / "c.png", "--out", tmp_path / "r.jsonl")
    ask("test", *words, "--model", "vae")
    said = ask("test", *words, "--model", "flow", "--count", 47, "--draws", 2, "--exhaustive", 20, "--steps", 8).stdout
    vae, flow = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert vae["half_sse"] > 1 and vae["kl"] > 0.1 and "bayes" not in vae and "flow_loss" in flow
    rows = {row["name"]: row for row in flow["bayes"]}
    assert set(rows) == {"code", "bound, K = 1", "one Gaussian a class", "8 Gaussians a class", "exhaustive"}
    assert rows["one Gaussian a class"]["accuracy"] > 0.1 and 0 <= rows["code"]["accuracy"] <= 1
    assert rows["exhaustive"]["same"] == 20 and "Bayes' rule given the code; no likelihood of pixels" in said
    assert Image.open(tmp_path / "c.png").width > 300
    refused = ask("test", *words, "--weights", "latent", code=2)
    assert "has images of (1, 28, 28) and 47 labels: this model is for (1, 28, 28) and 10" in refused.stderr


def test_each_bound_takes_its_own_time_and_its_draws_are_among_those_of_the_next(there, root):
    experiment = load("weights/EMNIST-balanced_flow.pth").experiment
    codes = Codes(experiment, load_data("EMNIST-balanced", "test", root)[torch.arange(20)], steps=4)
    by_code = codes.answer(log_prior := torch.full((CLASSES,), 1 / CLASSES).log())
    bounds = lambda *counts: [*by_importance(codes, by_code, log_prior, 0.05, counts)]
    (first, second), (alone,) = bounds(1, 3), bounds(3)
    assert (first.name, second.name) == ("bound, K = 1", "bound, K = 3") and first.seconds < second.seconds
    assert not torch.equal(first.nats, by_code.nats) and not torch.equal(second.nats, first.nats)
    torch.testing.assert_close(second.nats, alone.nats)


# --- Promotion ---


def test_promote_asks_only_on_a_terminal_keeps_the_old_and_knows_the_better(there, tmp_path, monkeypatch):
    dev, main = versions.path_of(there, "EMNIST-balanced_vae", "dev"), tmp_path / "weights/m.pth"
    images = torch.from_numpy(letters(200)[0].copy()).unsqueeze(1).mT.contiguous()
    held_out = Dataset("EMNIST-balanced", images, torch.zeros(200, dtype=torch.long), ("0",))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "no terminal to ask at (--promote yes" in promote(dev, main, "ask", held_out)
    assert "was not promoted" in promote(dev, main, "no", held_out) and not main.exists()
    assert "there was no main" in promote(dev, main, "best", held_out) and main.exists()
    worse = load_weights(dev)
    with torch.no_grad():
        worse.network.decoder[-2].bias += 2
    old = main.read_bytes()
    bad = save_weights(tmp_path / "bad.pth", worse)
    assert "was not promoted" in promote(bad, main, "best", held_out) and main.read_bytes() == old
    assert "the old one is kept in" in promote(bad, main, "yes", held_out)
    assert (tmp_path / "weights/m.pth.1").read_bytes() == old
    assert "(best: loss" in promote(dev, main, "best", held_out)

    class Terminal(io.StringIO):
        isatty = lambda self: True

    def ctrl_d(text):
        raise EOFError

    no, yes = (lambda text: "n"), (lambda text: "y")
    for answer, there_is in ((no, "was not promoted"), (ctrl_d, "was not promoted"), (yes, "promoted to")):
        monkeypatch.setattr("sys.stdin", Terminal())
        monkeypatch.setattr("builtins.input", answer)
        assert there_is in promote(dev, main, "ask", held_out)


# --- Mistakes ---

OF_CODECS = ("test", "test-reconstruction", "encode-dataset")
CROPS = ("--weights", "latent_vae", "--dataset", "MNIST-crops", *DATA)


@pytest.mark.parametrize("mode", OF_CODECS)
def test_a_batch_size_is_understood_and_said_not_to_be_needed(mode):
    said = " ".join(ask(mode, "--help").stdout.split())
    assert "--batch-size BATCH_SIZE understood, not needed" in said


@pytest.mark.parametrize(
    "mode, words, says",
    [
        ("train", ("--model", "vea"), "unknown model 'vea' — did you mean 'vae'?"),
        ("train", ("--model", "vae", "--laten", "20"), "unknown option '--laten' — did you mean '--latent'?"),
        ("train", ("--model", "vae", "--latent"), "--latent: expected a value"),
        ("train", ("--model", "vae", "--latent", "many", *DATA), "setting 'network.latent' cannot be 'many'"),
        ("train", ("--model", "vae", "--eval-samples", "64"), "--eval-samples goes without --model"),
        ("train", ("--model", "vae", "--features=inception"), "--features goes without --model"),
        ("train", ("--model", "vae", "--autoencoder-version", "dev"), "goes with --model flow"),
        ("train", ("--model", "flow", "--codec", "latent_vae", "--autoencoder-version", "dev"), "unless --codec does"),
        ("train", ("--model", "vae", "--preset", "unet"), "leave --preset and --config out"),
        ("train", ("--dataset", "EMNIST", "--split", "letters", "--model", "vae"), "unknown split 'letters'"),
        ("train", ("--dataset", "MNIST", "--split", "byclass", "--model", "vae"), "goes with --dataset EMNIST"),
        (
            "train",
            ("--dataset", "EMNIST", "--model", "flow"),
            "no main version of the vae of EMNIST-balanced: `python src",
        ),
        (
            "generate",
            ("--model", "flow", "--dataset", "EMNIST", "--split", "byclass"),
            "`python src train --dataset EMNIST",
        ),
        ("generate", ("--model", "vae"), "unknown model 'vae'"),
        ("generate", (), "Say either --weights NAME or --model flow"),
        ("generate", ("--weights", "unet", "--model", "flow"), "Say either --weights NAME or --model flow"),
        ("generate", ("--weights", "ddpm_unet", "--diffusion", "3"), "is not a number from 0"),
        ("generate", ("--weights", "default", "--diffusion", "1"), "on straight lines"),
        ("generate", ("--weights", "unet", "--dataset", "FashionMNIST"), "--dataset goes with --model"),
        ("generate", ("--weights", "unet", "--split", "balanced"), "--split balanced goes with --dataset EMNIST"),
        ("generate", ("--weights", "unet", "--model-version", "dev"), "--model-version goes with --model"),
        ("generate", ("--model", "flow", "--diffusion", "0.5", "--sampler", "heun"), "by sde or ddpm, not by 'heun'"),
        ("encode-dataset", ("--weights", "latent_vae", "--split", "balanced"), "goes with --dataset EMNIST"),
        ("test", ("--weights", "unet"), "works on pixels: `python src evaluate` scores it"),
        ("test-reconstruction", ("--weights", "unet"), "works on pixels"),
        ("encode-dataset", ("--weights", "unet"), "it has no latents"),
        *((mode, CROPS, "has images of (1, 20, 20) and 10 labels: this model is for") for mode in OF_CODECS[:2]),
        ("encode-dataset", (*CROPS, "--part", "test"), "has images of (1, 20, 20) and 10 labels"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(tmp_path, monkeypatch, mode, words, says):
    monkeypatch.chdir(tmp_path)
    refused = ask(mode, *words, code=2)
    assert says in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert list(tmp_path.rglob("*.p*")) == []
