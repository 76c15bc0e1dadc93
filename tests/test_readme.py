"""The README's code runs as printed, and what it names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_ten_lines_run():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["digits"].shape == (4, 1, 28, 28)
    assert names["digits"].min() >= 0 and names["digits"].max() <= 1
    assert (names["x_s"] - names["x_t"]).abs().max() > 0


def test_every_file_it_names_is_there():
    table = README[README.index("## The house") :]
    folder = None
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row):
            path = ROOT / name if "/" in name else folder / name
            folder = path.parent
            assert path.exists(), name
    for weights in re.findall(r"--weights (\w+) --out", README):  # those with no --count are shipped
        assert (ROOT / "weights" / f"{weights}.pth").exists(), weights
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).stat().st_size > 1000
