"""Pictures of one's own with captions, and WikiArt's columns."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion.data import captions, folder, sources
from diffusion.errors import UserError


def write(root, count=30):
    """Pictures whose colour is their caption: wide ones, so that they have to be cut."""
    said = []
    for i in range(count):
        name, colour = ("red", (255, 0, 0)) if i % 2 else ("blue", (0, 0, 255))
        picture = Image.new("RGB", (90, 40), colour)
        picture.putpixel((0, 0), (1, 2, 3))  # cut away
        picture.save(root / f"{i}.png")
        said.append({"file_name": f"{i}.png", "text": f"A {name} sheet, no. {i}"})
    return said


@pytest.mark.parametrize(("kind", "encoding"), [("jsonl", "utf-8"), ("csv", "utf-8"), ("csv", "utf-8-sig")])
def test_a_folder_is_read_with_its_captions(tmp_path, kind, encoding):
    said = write(tmp_path)
    lines = [json.dumps(row) for row in said]
    if kind == "csv":
        lines = ["file_name,text", *(f'{row["file_name"]},"{row["text"]}"' for row in said)]
    (tmp_path / f"metadata.{kind}").write_text("\n".join(lines), encoding=encoding)
    train, test = (sources.load("folder", split, tmp_path) for split in ("train", "test"))
    assert len(train) + len(test) == 30 and 0 < len(test) < 9 and train.classes == test.classes
    for data in (train, test):
        for image, caption in zip(data.images, captions.decode(data.labels, data.classes)):
            colour = (255, 0, 0) if "red" in caption else (0, 0, 255)
            assert (torch.tensor(colour) == image.flatten(1).T).all() and caption.startswith("a ")
    both = captions.decode(train.labels, train.classes) + captions.decode(test.labels, test.classes)
    assert sorted(both) == sorted(" ".join(captions.split(row["text"])) for row in said)
    assert len(sources.load("folder", "train", tmp_path, samples=3)) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no captions in"),
        ('{"file_name": "0.png"}', "each line has a file_name and a text"),
        ("not json", "each line has a file_name and a text"),
        (
            '\n{"file_name": "0.png", "text": null}',
            "metadata.jsonl', line 2: each line has a file_name and a text (no",
        ),
        ('{"file_name": "\\u0000.png", "text": "x"}', "is no picture that can be read: embedded null byte"),
        ('{"file_name": "../secret.png", "text": "x"}', "is outside of"),
        ('{"file_name": "none.png", "text": "x"}', "is no picture that can be read"),
        ('{"file_name": "metadata.jsonl", "text": "x"}', "is no picture that can be read"),
    ],
)
def test_a_mistake_in_a_folder_is_one_sentence(tmp_path, text, says):
    if text:
        (tmp_path / "metadata.jsonl").write_text(text + "\n")
    with pytest.raises(UserError) as error:
        sources.load("folder", "train", tmp_path)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("row", ["1.png", f"1.png,{'x' * 131_073}", "1.png,a red sheet, folded"])
def test_a_row_of_a_table_that_cannot_be_read_is_named(tmp_path, row):
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n0.png,a red sheet\n{row}\n2.png,a blue sheet\n")
    with pytest.raises(UserError, match="metadata.csv', line 3: each line has a file_name and a text"):
        sources.load("folder", "train", tmp_path)


def test_a_picture_that_is_too_large_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, write(tmp_path, 2))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90 * 40 // 2 - 1)  # PIL refuses more than twice as many
    with pytest.raises(UserError, match="0.png' is no picture that can be read: Image size"):
        sources.load("folder", "train", tmp_path)


def test_the_folder_may_be_below_home(tmp_path, monkeypatch):
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, write(tmp_path))))
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert len(sources.load("folder", root=f"~/{tmp_path.name}")) > 20


def test_rare_words_and_long_ends_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "MOST_WORDS", 2)
    monkeypatch.setattr(folder, "LENGTH", 3)
    lines = [{**row, "text": "sea sea sea sky sky rare"} for row in write(tmp_path, 20)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = sources.load("folder", "train", tmp_path)
    assert data.classes == ("", "sea", "sky") and set(captions.decode(data.labels, data.classes)) == {"sea sea sea"}


def test_wikiart_is_read_by_its_columns(tmp_path):
    datasets = pytest.importorskip("datasets")
    pictures = [Image.fromarray(np.full((50, 70, 3), i, dtype=np.uint8)) for i in range(40)]
    said = [f"Claude Monet / Haystack {i} / Impressionism / landscape / 189{i % 10}" for i in range(40)]
    features = datasets.Features({"image": datasets.Image(), "description": datasets.Value("string")})
    rows = datasets.Dataset.from_dict({"image": pictures, "description": said}, features=features)
    rows.save_to_disk(str(tmp_path / "wikiart"))
    train, test = (sources.load("wikiart", split, tmp_path) for split in ("train", "test"))
    assert len(train) + len(test) == 40
    for data in (train, test):
        for image, caption in zip(data.images, captions.decode(data.labels, data.classes)):
            number = int(image.float().mean())
            assert caption == f"claude monet haystack {number} impressionism landscape 189{number % 10}"


def test_wikiart_that_cannot_be_had_is_one_sentence(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "wikiart").mkdir()
    with pytest.raises(UserError) as error:
        sources.load("wikiart", "train", tmp_path)
    assert "save it with `datasets` as" in str(error.value)
