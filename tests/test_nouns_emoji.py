"""Nouns and emoji: files as their makers published them, captions that are true, and what training never shows."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import captions, emoji, nouns, sources
from diffusion.laboratory.subjects import Asked, EmojiExam
from diffusion.metrics.parts import recognise

PALETTE = ["", "ff0000", "00ff00", "0000ff", "102030"]


def part(name, top, right, bottom, left, *runs):
    return {"filename": name, "data": "0x00" + bytes([top, right, bottom, left, *runs]).hex()}


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """Two or three parts of each kind, in the real file's format."""
    images = {
        "bodies": [
            part("body-red", 20, 28, 31, 4, 144, 1, 144, 1),
            part("body-blue-sky", 20, 28, 31, 4, 144, 3, 144, 3),
        ],
        "accessories": [part("accessory-none", 0, 0, 0, 0), part("accessory-dot", 25, 14, 25, 12, 2, 2)],
        "heads": [part(f"head-{n}", top, 22, 18, 6, *[16, 4] * (19 - top)) for n, top in (("ape", 2), ("cow-B", 9))],
        "glasses": [
            part("glasses-a2+b2", 10, 20, 11, 8, 12, 2, 6, 0, 6, 2),
            part("glasses-round", 10, 20, 10, 8, 12, 1),
        ],
    }
    (tmp_path / "nouns").mkdir()
    content = json.dumps({"bgcolors": ["d5d7e1", "e1d7d5"], "palette": PALETTE, "images": images}).encode()
    (tmp_path / "nouns" / nouns.FILE).write_bytes(content)
    monkeypatch.setattr(nouns.fetch, "is_whole", lambda path, digest: path.is_file())
    return nouns.open_nouns(tmp_path)


def test_the_run_length_code_is_read(figures):
    head, glasses = figures.pixels["head"], figures.pixels["glasses"]
    expected = np.zeros((32, 32), bool)
    expected[9:19, 6:22] = True
    assert ((head[1][3] > 0) == expected).all() and (head[1][:3, 9:19, 6:22].reshape(3, -1).T == (16, 32, 48)).all()
    assert (glasses[0][3, 10] > 0).sum() == 12 and (glasses[0][3, 11, 8:20] > 0).tolist() == [False] * 6 + [True] * 6
    assert not figures.pixels["accessory"][0].any()


def test_layers_cover_each_other_and_the_caption_names_them(figures):
    for index in range(40):
        image, caption, noun = figures[index]
        where = {"ground": (0, 0), "body": (30, 5), "head": (18, 7), "glasses": (10, 9)}
        for layer, (y, x) in where.items():
            assert (image[:, y, x] == figures.pixels[layer][noun.parts[layer]][:3, y, x]).all()
            assert (layer in caption) is (layer not in noun.unsaid)
        assert caption.startswith(f"{figures.names['head'][noun.parts['head']]} head, ")
        rows = captions.encode([caption], figures.words, figures.length)
        assert captions.decode(rows, figures.words)[0].split() == captions.split(caption)


def test_the_nearest_figure_has_the_parts_it_was_made_of(figures):
    made = [figures[index].noun for index in range(30)]
    images = torch.stack([torch.from_numpy(figures.render(noun)) for noun in made]) / 255
    parts = {layer: torch.from_numpy(figures.pixels[layer]) for layer in nouns.LAYERS}
    noisy = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    for seen in (images, noisy):
        found = recognise(seen, parts)
        for layer in nouns.LAYERS:
            assert found[layer].tolist() == [noun.parts[layer] for noun in made]


def test_training_never_shows_a_held_out_pair_of_head_and_glasses(tmp_path, figures):
    data = sources.load("nouns", "train", tmp_path, samples=50)
    assert data.images.shape == (50, 3, 32, 32) and data.classes == figures.words
    source = nouns.open_nouns(tmp_path, split="seen")
    assert all((source[i].noun.parts["head"] + source[i].noun.parts["glasses"]) % 10 != 3 for i in range(50))
    assert torch.equal(data.images[7], torch.from_numpy(source[7].image))


# --- Emoji ---


def package(path, files):
    """A package of the registry: files by their names, in a .tgz."""
    with gzip.open(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(f"package/{name}")
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


def png(colour):
    picture = io.BytesIO()
    Image.new("RGBA", (64, 64), colour).save(picture, "PNG")
    return picture.getvalue()


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Emoji in two styles, one of them in one style alone; a skin tone; a flag."""
    listed = [
        {"label": "grinning face", "hexcode": "1F600", "tags": ["face", "grin"], "group": 0},
        {
            "label": "red heart",
            "hexcode": "2764-FE0F",
            "tags": ["love"],
            "group": 0,
            "skins": [{"hexcode": "2764-1F3FB"}],
        },
        {"label": "flag: Peru", "hexcode": "1F1F5-1F1EA", "group": 9},
        {"label": "held", "hexcode": "1F605", "tags": [], "group": 0},  # 0x1F605 % 10 is 7
        {"label": "lonely", "hexcode": "1F601", "tags": [], "group": 0},
    ]
    folder = tmp_path / "emoji"
    folder.mkdir()
    names = [f"{each}.tgz" for each in emoji.PACKAGES]
    every = {
        "1f600": (255, 0, 0, 255),
        "2764-fe0f": (0, 0, 255, 255),
        "2764-1f3fb": (9, 9, 9, 255),
        "1f605": (0, 0, 0, 0),
    }
    for name, style, codes in zip(names, ("google", "twitter"), ([*every, "1f601"], [*every])):
        package(folder / name, {f"img/{style}/64/{code}.png": png(every.get(code, (1, 2, 3, 255))) for code in codes})
    package(folder / names[2], {"en/data.json": json.dumps(listed).encode()})
    monkeypatch.setattr(emoji.fetch, "is_whole", lambda path, digest: path.is_file())
    return tmp_path


def test_emoji_are_those_of_both_styles_without_flags_and_skin_tones(packages):
    assert int("1F605", 16) % 10 == 7
    source = emoji.open_emoji(packages)
    assert source.names == ["grinning face", "red heart", "held"] and source.codes == ["1F600", "2764-FE0F", "1F605"]
    assert source.images.shape == (3, 2, 3, 32, 32)
    assert source.images[1, 0, :, 16, 16].tolist() == [0, 0, 255] and (source.images[2] == 255).all()  # on white


def test_the_caption_of_an_emoji_is_its_style_its_name_and_some_tags(packages):
    source = emoji.open_emoji(packages)
    said = {source[index].caption for index in range(200)}
    assert {"noto red heart", "twemoji red heart, love", "noto grinning face, grin, face", "twemoji held"} <= said
    rows = captions.encode(sorted(said), source.words, emoji.LENGTH)
    assert (rows[:, 0] > 0).all()


def test_the_packages_are_unpacked_once_and_held_out_emoji_are_not_trained_on(packages):
    train, test = (sources.load("emoji", split, packages, samples=60) for split in ("train", "test"))
    for path in (packages / "emoji").glob("*.tgz"):
        path.unlink()
    assert torch.equal(sources.load("emoji", "train", packages, samples=60).labels, train.labels)
    shown = " ".join(captions.decode(train.labels, train.classes)).split()
    assert "held" not in shown and all("held" in each for each in captions.decode(test.labels, test.classes))


def test_a_picture_shows_the_emoji_and_the_style_that_it_is_nearest_to(packages):
    exam = EmojiExam(packages, torch.device("cpu"), 5)
    noise = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exam.images[0, 1] = torch.arange(32).byte() * 8  # the styles of these emoji are of one colour: now they differ
    exam.known = exam.images.flatten(0, 1).flatten(1) / 255
    for split, names in (("seen", {0, 1}), ("unseen", {2})):
        questions = exam.questions(split)
        assert {each.emoji for each in questions} == names and {each.style for each in questions} == {0, 1}
        (marks,) = exam.mark(questions, exam.render(questions) + 0.1 * noise)
        for verdicts in (marks.real, marks.model):  # the other emoji look the same in both styles
            assert all(each["emoji"] and (each["style"] or asked.emoji) for each, asked in zip(verdicts, questions))
    face, other = Asked("noto grinning face", "seen", 0, 0), Asked("twemoji grinning face", "seen", 0, 1)
    assert exam.check((0, 1), face) == {"emoji": True, "style": False}
    assert exam.check((1, 1), other) == {"emoji": False, "style": True}
