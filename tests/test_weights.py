"""Every shipped denoiser loads, draws, and says how it was scored; the command that makes them goes on where it was."""

import functools
import inspect
import io
import json
import re
import shutil
import statistics
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from diffusion import files
from diffusion.__main__ import main
from diffusion.api.generation import trajectory
from diffusion.cli import weights as command_line
from diffusion.commands import weights
from diffusion.data import datasets as data
from diffusion.errors import UserError
from diffusion.experiment import presets
from diffusion.experiment.build import build
from diffusion.experiment.config import Config
from diffusion.experiment.presets import COLD, DDPM, GUIDED, LATENT
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.weights import load_weights, save_weights
from diffusion.laboratory import run as laboratory
from diffusion.laboratory.catalogue import catalogue
from diffusion.laboratory.families import FAMILIES, Family
from diffusion.laboratory.losses import codec_losses
from diffusion.metrics.features import extractor_for
from diffusion.metrics.scores import Reference, score

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "weights"
FILES = [path for path in sorted(WEIGHTS.glob("*.pth")) if not path.stem.startswith(("classifier_", "text_"))]
CODECS = [path for path in FILES if path.stem.endswith("_vae")]
SHIPPED = [path for path in FILES if path not in CODECS]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_denoiser_draws_as_well_as_it_says(path):
    experiment = load_weights(path)
    about = experiment.about
    assert about["holds"] == "ema" and about["scores"]["fid"] > about["scores"]["floor"] / 2 > 0
    options = SamplingOptions(steps=min(28, experiment.process.most_steps or 28))
    count = 24 if about["scores"]["fid"] < 8 else 8
    *_, images = trajectory(experiment, torch.arange(count), options, seed=1)
    assert images.shape == (count, 1, 28, 28) and images.min() >= 0 and images.max() <= 1
    _, logits = extractor_for(experiment.config.dataset, WEIGHTS)(images)
    surely = logits.softmax(1).max(1).values.mean()  # noise gives 0.3, real digits 0.98
    if about["scores"]["fid"] < 8:
        assert surely > 0.75 and len(logits.argmax(1).unique()) >= 7
    if about["epoch"] == 0:
        assert len(logits.argmax(1).unique()) <= 3  # untrained: nothing to be seen


@pytest.mark.parametrize("path", CODECS, ids=lambda path: path.stem)
def test_a_shipped_codec_keeps_as_much_as_it_says_and_its_flow_carries_it(path):
    codec, flow = load_weights(path), load_weights(path.with_name(path.name.replace("_vae", "")))
    assert flow.codec.digest == codec.codec.digest
    test, said = data.load(codec.config.dataset, "test", ROOT / "data").shuffled(), codec.about["scores"]
    found = codec_losses(codec.codec, test[torch.arange(2000)])
    assert found["half_sse"] == pytest.approx(said["half_sse"], rel=0.05)
    assert found["kl"] == pytest.approx(said["kl"], rel=0.05)


@functools.cache
def contents():
    """Of all shipped files, as they are stored."""
    return [files.load(path) for path in FILES]


def recorded(config):
    """(axis, FID, N, NFE, epochs) of the longest training that was shipped of a preset, for each axis."""
    free = {key: getattr(config, key) for key in ("axis", "precision", "sampler")}
    found = {}
    for content in sorted(contents(), key=lambda content: content["about"]["epoch"]):
        if asdict(Config()) | content["config"] | free == asdict(config):  # a setting may be newer than a file
            axis = f" {content['config']['axis']}" if config.process == "averaging" else ""
            scores = content["about"]["scores"]
            found[axis] = axis, scores["fid"], scores["n"], scores.get("calls"), content["about"]["epoch"]
    return [found[axis] for axis in sorted(found, reverse=True)]  # row before col


def said_of(config):
    """The end of a preset's line."""
    lines = lambda name: map(json.loads, (ROOT / f"Report/results/{name}.jsonl").read_text().splitlines())
    if config.preset == "unet_fast":  # three trainings of five minutes, not shipped
        evaluated = [line for line in lines("evaluate") if "ttq/time_to_quality_unet_fast_" in line["weights"]]
        fid = statistics.mean(row["fid"] for line in evaluated for row in line["rows"])
        by_wall = [line for line in lines("time_to_quality") if line["row"] == "ours" and line.get("clock") != "cpu"]
        minutes = max(line["minutes"] for line in by_wall)
        rows, length = [("", fid, evaluated[0]["samples"], evaluated[0]["calls"], 0)], f"{minutes:g} minutes"
    else:
        rows = recorded(config)
        length = "/".join(dict.fromkeys(f"{epochs:.3g}" for *_, epochs in rows)) + " epochs"
    fids = ", ".join(f"{fid:.{2 if fid > 0.1 else 4}f}{axis}" for axis, fid, *_ in rows)
    if not rows:
        return "not measured"
    how = f"{rows[0][3]} NFE" if rows[0][3] else "reconstructions"
    return f"FID {fids} (N={rows[0][2]:,}, {how}, {length})"


def test_every_line_of_the_preset_tables_ends_in_its_measured_score():
    said = re.findall(r'^    "(\w+)": .*,  +# (.*)$', inspect.getsource(presets), re.MULTILINE)
    assert said == [(name, said_of(line)) for table in (DDPM, COLD, GUIDED, LATENT) for name, line in table.items()]


def test_the_page_about_the_weights_is_what_the_files_say():
    assert (WEIGHTS / "README.md").read_text() == catalogue(WEIGHTS)


def test_files_without_scores_are_named_beside_the_table(tmp_path):
    network = {"hidden": (4, 4), "timesteps": 10}
    for name, about in {  # promoted, copied from the folder of a training, saved as it was made
        "promoted": {"epoch": 1, "scores": {"held_out": 0.5}},
        "trained": {"epoch": 1, "scores": {"fid": 3.0, "n": 64, "n_reference": 200}},
        "made": {},
    }.items():
        made = build(Config(**network))
        made.about = about
        save_weights(tmp_path / f"{name}.pth", made)
    state = {f"gt.{name}": value for name, value in made.network.state_dict().items()}
    files.save(tmp_path / "ddpm_mnist_80_default.pth", state | {"alpha_t": made.process.schedule.alpha_bar})
    shutil.copy(WEIGHTS / "latent_tiny_vae.pth", tmp_path)
    main(["weights", "--table", "--into", str(tmp_path)])
    page, names = (tmp_path / "README.md").read_text(), ("ddpm_mnist_80_default", "made", "promoted", "trained")
    assert page.endswith(f"\n\nWithout the scores of this page: {', '.join(f'`{name}.pth`' for name in names)}\n")
    assert "| `latent_tiny_vae.pth` |" in page


def test_every_shipped_file_is_one_that_the_command_makes():
    assert {path.name for path in SHIPPED} <= {file for each in FAMILIES.values() for file in each.files}


@pytest.fixture
def few(monkeypatch, tmp_path):
    """The command on 200 real digits, with a network that trains an epoch in a second."""
    whole = {split: data.load("MNIST", split, ROOT / "data") for split in ("train", "test")}
    some = lambda name, split, *_: data.Dataset(
        name, whole[split].images[:200], whole[split].labels[:200], whole[split].classes
    )
    monkeypatch.setattr(laboratory, "load", some)
    tiny = {"hidden": (4, 4), "batch_size": 50, "lr": 3e-3, "precision": "fp32"}
    families = {
        "tiny": Family(DDPM["testing"].replace(**tiny, timesteps=10), (0, 1, 3)),
        "tiny_row": Family(COLD["default_7"].replace(**tiny), (2,)),
    }
    for part in (command_line, weights):
        monkeypatch.setattr(part, "FAMILIES", families)
    words = f"--into {tmp_path}/w --out {tmp_path} --data-root {tmp_path} --eval-samples 64 --eval-seeds 2 --device cpu"
    return tmp_path, lambda *more: main(["weights", *words.split(), *more])


def test_the_command_trains_scores_stores_and_does_nothing_twice(few, capsys):
    folder, make = few
    make("--only", "tiny", "tiny_row")
    names = [f"ddpm_mnist_{epoch}_testing.pth" for epoch in (0, 1, 3)] + ["custom_mnist_2_row_default_7.pth"]
    assert sorted(path.name for path in (folder / "w").glob("*.pth")) == sorted(names)
    first = {name: (folder / "w" / name).read_bytes() for name in names}
    again = folder / "w" / names[1]
    again.unlink()
    state = (folder / "runs/DDPM_testing/state.pt").read_bytes()
    make("--only", "tiny", "tiny_row")
    said = capsys.readouterr().out
    assert said.count("nothing was missing") == 1 and f"tiny: wrote {again}\n" in said
    assert again.read_bytes() == first[names[1]]  # to the bit, scores and all
    assert (folder / "runs/DDPM_testing/state.pt").read_bytes() == state  # nothing was trained
    assert (folder / "w/README.md").read_text() == catalogue(folder / "w")

    files.save(again, files.load(again) | {"about": {"epoch": 1, "step": 4, "holds": "ema", "scores": {}}})
    make("--only", "tiny", "tiny_row", "--rescore")
    scores = lambda content: content["about"]["scores"]
    assert scores(files.load(again)) == scores(torch.load(io.BytesIO(first[names[1]]), weights_only=True))
    for name in set(names) - {again.name}:
        assert (folder / "w" / name).read_bytes() == first[name]

    kept, run = (files.load(folder / part / names[2]) for part in ("w", "runs/DDPM_testing"))
    assert all(value.dtype == torch.float16 for value in kept["network"].values())
    for name, value in load_weights(again.with_name(names[2])).denoiser.network.state_dict().items():
        assert torch.equal(value, run["network"][name].half().float())


def test_the_stored_scores_are_those_of_the_stored_weights(few):
    folder, make = few
    make("--only", "tiny_row", "--eval-seeds", "1")
    experiment = load_weights(folder / "w/custom_mnist_2_row_default_7.pth")
    train, test = (laboratory.load("MNIST", split) for split in ("train", "test"))
    reference = Reference.of(extractor_for("MNIST", WEIGHTS), train.images)
    *_, images = trajectory(experiment, torch.arange(64))
    scores = experiment.about["scores"]
    assert scores["fid"] == pytest.approx(score(images, reference).fid, rel=1e-6)
    assert scores["floor"] == pytest.approx(score(test.shuffled().images[:64], reference).fid, rel=1e-6)
    originals = test.shuffled().images[:64]
    *_, images = trajectory(experiment, torch.arange(64), SamplingOptions("direct"), originals=originals)
    assert scores["restored"]["direct"]["fid"] == pytest.approx(score(images, reference).fid, rel=1e-6)
    assert scores["restored"]["direct"]["mean"] == pytest.approx(images.mean().item(), abs=2e-3)


def test_the_mean_of_files_is_theirs_in_every_weight_and_scored(few):
    folder, make = few
    make("--only", "tiny_row", "--eval-seeds", "1")
    file = folder / "w/custom_mnist_2_row_default_7.pth"
    parts = [file.rename(folder / "a.pth"), folder / "b.pth"]
    content = files.load(parts[0])
    more = {"network": {name: value + 1 for name, value in content["network"].items()}}
    others = {"config": content["config"] | {"preset": "mine", "sampler": "alg1", "lr": 0.5}}
    for path, changes in zip(parts, ({}, more)):
        files.save(path, content | others | changes)
    trained = folder / "runs/custom_row_default_7/custom_mnist_2_row_default_7.pth"
    before = trained.read_bytes()
    make("--only", "tiny_row", "--eval-seeds", "1", "--mean", *map(str, parts))
    mean = files.load(file)
    assert trained.read_bytes() == before and mean["config"] == content["config"]  # the family's
    for name, value in content["network"].items():
        assert torch.allclose(mean["network"][name].float(), value.float() + 0.5, rtol=2e-3, atol=2e-3)
    assert mean["about"]["mean_of"] == 2 and mean["about"]["scores"]["n"] == 64
    with pytest.raises(UserError, match="is there: --mean does not replace it"):
        make("--only", "tiny_row", "--mean", *map(str, parts))


@pytest.mark.parametrize("words, says", [
    (["tiny", "tiny_row"], "--mean makes one file: name it by --only, a family that has no other"),
    (["tiny_row"], "--mean 'unet' has pixel_range (-1.0, 1.0): its weights do not suit a model with (-0.5, 0.5)"),
    (["tiny_row", "--rescore"], "--mean makes a file, and scores it: leave --rescore and --table out"),
    (["tiny_row", "--table"], "--mean makes a file, and scores it: leave --rescore and --table out"),
])  # fmt: skip
def test_a_mean_that_cannot_be_is_refused(few, words, says):
    with pytest.raises(UserError) as error:
        few[1]("--only", *words, "--mean", "unet")
    assert str(error.value).startswith(says)


def test_a_misspelt_family_is_answered_with_the_nearest(few, capsys):
    with pytest.raises(SystemExit) as left:
        few[1]("--only", "tinny")
    assert left.value.code == 2 and "did you mean 'tiny'" in capsys.readouterr().err
