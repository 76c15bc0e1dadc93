"""Everything in the report that is a number or a picture, from the runs' JSON and the shipped weights.

PYTHONPATH=src python Report/figures.py             Report/generated/: tables and curves, and samples of fixed seeds
PYTHONPATH=src python Report/figures.py --tables    without the samples
PYTHONPATH=src python Report/figures.py --floors    first, measure anew what real test images score
"""

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tables
import torch
from tables import ROOT, WEIGHTS, read, shipped
from torch import Tensor

from diffusion.api.generation import degrade_images, trajectory
from diffusion.data.datasets import Dataset, load
from diffusion.experiment.build import Experiment, build
from diffusion.experiment.presets import COLD, DDPM
from diffusion.experiment.weights import load_weights
from diffusion.method.sampler import last
from diffusion.metrics.features import extractor_for
from diffusion.metrics.scores import Reference, floor

logging.getLogger("fontTools").setLevel(logging.ERROR)  # matplotlib's own fonts have odd dates
DATA, WIDTH = ROOT / "data", 6.3  # inches of a line of text
SEED, COLUMNS = 0, 16
STYLE = {
    "font.family": "serif", "font.serif": ["cmr10"], "mathtext.fontset": "cm", "axes.formatter.use_mathtext": True,
    "axes.unicode_minus": False, "font.size": 9, "legend.fontsize": 7.5, "axes.grid": True, "grid.alpha": 0.3,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "pdf.fonttype": 42,
}  # fmt: skip
MARKS = "osD^vPX*<>hp"

# --- Curves ---


def loss() -> plt.Figure:
    """The mean loss of each epoch, of all histories: DDPM and cold diffusion beside each other."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 1.75))
    for name, history in tables.histories().items():
        points = [(r["epoch"], r["loss"]) for r in history if r.get("loss") is not None]
        panel = axes[1] if name.startswith(("row", "col")) else axes[0]
        panel.plot(*zip(*points), marker=".", ms=3, lw=1, label=name.replace("_", "-"))
    for panel, title in zip(axes, ("part 1", "part 2")):
        panel.set(title=title, xlabel="epoch", yscale="log")
        ticks_in_words(panel)
        if panel.lines:
            panel.set_ylim(top=panel.get_ylim()[1] * 2)
            panel.legend(ncols=2, loc="upper right")
    axes[0].set_ylabel("training loss")
    return figure


def ticks_in_words(panel: plt.Axes) -> None:
    """A log axis that spans less than a decade or two: plain numbers."""
    panel.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5)))
    panel.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    panel.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def epochs() -> plt.Figure:
    """FID against epochs, of every family in weights/ and of every history that was scored on enough images."""
    figure, panel = plt.subplots(figsize=(WIDTH, 2.0))
    families = {}
    for each in shipped():
        if each.scores.get("fid") and tables.same_eyes(each.scores):
            families.setdefault(each.family, []).append((each.epoch, each.scores["fid"], each.scores.get("fid_sd", 0)))
    for name, history in tables.histories().items():
        scored = [(r["epoch"], r["fid"], 0) for r in history if r.get("fid") is not None and tables.same_eyes(r)]
        if len(scored) > len(families.get(name, [])):
            families[name] = scored
    for (name, points), mark in zip(families.items(), MARKS * 3):
        x, y, spread = zip(*points)
        panel.errorbar(x, y, yerr=spread, marker=mark, ms=4, lw=1, capsize=2, label=name.replace("_", "-"))
    floors = [each.scores["floor"] for each in shipped() if each.scores.get("floor")]
    floors += [r["floor"] for history in tables.histories().values() for r in history if r.get("floor")]
    if floors:
        panel.axhspan(min(floors), max(floors), color="grey", alpha=0.25, lw=0, label="floors")
    panel.set(xlabel="epochs of training", ylabel="FID", yscale="log")
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))  # there may be many
    return figure


def fast() -> plt.Figure:
    """FID against network calls; what guidance buys and what it costs."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH, 2.2))
    records = tables.sampler_rows()
    for name, mark in zip(dict.fromkeys(r["sampler"] for r in records), MARKS):
        mine = sorted((r["calls"], r["fid"]) for r in records if r["sampler"] == name)
        left.plot(*zip(*mine), marker=mark, ms=3.5, lw=1, label=name)
    budgets = sorted({r["calls"] for r in records if r["sampler"] != "heun"})
    left.set(xlabel="network calls", ylabel="FID", xscale="log", yscale="log")
    left.set_xticks(budgets, [str(each) for each in budgets])
    left.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    rows = tables.guidance_rows()
    scales = [r["guidance_scale"] for r in rows]
    middle.plot(scales, [r["fid"] for r in rows], marker="o", ms=3.5, lw=1, label="FID")
    middle.set(xlabel="guidance scale", yscale="log")
    for panel, some in ((left, records), (middle, rows)):
        for height in {r["floor"] for r in some}:
            panel.axhline(height, color="grey", ls="--", lw=0.8, label="floor")
        ticks_in_words(panel)
    for key, mark in zip(("precision", "recall", "agreement"), MARKS):
        label = {"agreement": "label seen"}.get(key, key)
        right.plot(scales, [r[key] for r in rows], marker=mark, ms=3.5, lw=1, label=label)
    right.set(xlabel="guidance scale", ylim=(0, 1.05))
    for panel in (left, middle, right):
        panel.legend(handlelength=1.2, labelspacing=0.2)
    return figure


def labels() -> plt.Figure:
    """Which digits are drawn: ways back of the same network after equally many steps, and real digits."""
    figure, panel = plt.subplots(figsize=(WIDTH, 1.75))
    rows = [(what, records) for what, records in tables.equal_budget() if what["axis"] == "row"]
    shown = {("no noise", way) for way in ("alg2", "alg1")} | {("noise 0.15", way) for way in ("alg1", "pinned")}
    shown |= {("DDPM, same network", "ddpm")}
    rows = [row for row in rows if (row[0]["recipe"], row[0]["way"]) in shown]
    width = 0.8 / max(1, len(rows))
    for i, (what, records) in enumerate(rows):
        name = "DDPM" if what["way"] == "ddpm" else tables.WAYS[what["way"]].replace("Alg.~", "Algorithm ")
        name += {"no noise": ", no noise", "noise 0.15": ", fresh noise"}.get(what["recipe"], "")
        place = np.arange(10) + (i - (len(rows) - 1) / 2) * width
        panel.bar(place, tables.labels_of(records), width, label=name)
    real = next((r["labels"] for r in read("floors") if r["which"] == "drawn"), None)
    if real:
        panel.hlines(real, np.arange(10) - 0.45, np.arange(10) + 0.45, color="black", lw=1, label="real digits")
    panel.set(xticks=range(10), xlabel="digit that the classifier sees", ylabel="share")
    panel.grid(axis="x", visible=False)
    panel.set_ylim(top=panel.get_ylim()[1] * 1.2)
    panel.legend(ncols=3, loc="upper center")
    return figure


CURVES: dict[str, Callable[[], plt.Figure]] = {
    "loss": loss,
    "epochs": epochs,
    "fast": fast,
    "labels": labels,
}

# --- Samples ---

Strip = tuple[str, Tensor]  # a name and images (N, 1, H, W) in [0, 1]


def strips(rows: list[Strip], heads: list[str] | None = None, cell: float = 0.29) -> plt.Figure:
    """Rows of images `cell` inches wide, each beside its name; `heads` stand over the columns."""
    margin, top = 1.45, 0.18 if heads else 0.02
    wide, tall = margin + cell * max(len(images) for _, images in rows), cell * len(rows) + top
    figure = plt.figure(figsize=(wide, tall))
    for i, (name, images) in enumerate(rows):
        low = 1 - (top + (i + 1) * cell) / tall
        panel = figure.add_axes([margin / wide, low, len(images) * cell / wide, cell / tall])
        panel.imshow(paper(images), cmap="gray", vmin=0, vmax=255, interpolation="none", aspect="auto")
        panel.axis("off")
        figure.text((margin - 0.06) / wide, low + cell / tall / 2, name, ha="right", va="center", fontsize=8)
    for i, head in enumerate(heads or []):
        figure.text((margin + (i + 0.5) * cell) / wide, 1 - 0.02 / tall, head, ha="center", va="top", fontsize=8)
    return figure


def paper(images: Tensor, scale: int = 2, gap: int = 1) -> np.ndarray:
    """Images (N, 1, H, W) beside each other on white, uint8; enlarged here, as viewers would blur them.

    In 16 greys, which print alike in half the bytes.
    """
    pixels = ((images[:, 0].float().clamp(0, 1) * 15).round() * 17).byte().numpy()
    pixels = pixels.repeat(scale, 1).repeat(scale, 2)
    pixels = np.pad(pixels, ((0, 0), (gap, gap), (gap, gap)), constant_values=255)
    return np.concatenate(list(pixels), axis=1)


def lines(name: str, images: Tensor) -> list[Strip]:
    """Many images in rows of COLUMNS, the first of them named."""
    return [(name if i == 0 else "", part) for i, part in enumerate(images.split(COLUMNS))]


def newest(family: str) -> Experiment | None:
    """The weights of a family that were trained longest."""
    of = [each for each in shipped() if each.family == family]
    return load_weights(of[-1].path) if of else None


def drawn(experiment: Experiment, count: int = COLUMNS, **how) -> Tensor:
    return last(trajectory(experiment, torch.arange(count), SEED, **how))


def test_images() -> Dataset:
    return load("MNIST", "test", DATA).shuffled()


def forward() -> plt.Figure:
    """The processes: one real digit on its way to the prior."""
    image = test_images().images[3:4]
    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    cold = COLD["cold_unet"]
    configs = {
        "Gaussian, linear betas": DDPM["default"],
        "Gaussian, rectified": DDPM["ddpm_unet"],
        "rows, 28 groups": cold.replace(noise=0.0),
        "columns, 28 groups": cold.replace(noise=0.0, axis="col"),
        "rows, 7 groups": cold.replace(noise=0.0, timesteps=7),
        "rows, with noise": cold,
    }
    rows = [(name, degrade_images(build(c), image.expand(9, -1, -1, -1), times)) for name, c in configs.items()]
    return strips(rows, [f"$t={t:g}$" for t in times.tolist()], cell=0.46)


def path() -> plt.Figure:
    """States on the way back, from the prior to a digit."""
    ways = {
        "DDPM": (newest("ddpm_unet"), {}),
        "DDIM": (newest("ddpm_unet"), {"sampler": "ddim"}),
        "rows, fresh noise": (newest("row cold_unet"), {}),
        "columns, fresh noise": (newest("col cold_unet"), {}),
    }
    rows = []
    for name, (experiment, how) in ways.items():
        if experiment:
            states = list(trajectory(experiment, torch.arange(2), SEED, **how))
            at = torch.linspace(0, len(states) - 1, 9).round().long()
            rows += [(name, torch.stack([states[j][1] for j in at]))]
    return strips(rows, [f"$t={t:g}$" for t in torch.linspace(1, 0, 9).tolist()], cell=0.46)


def good() -> plt.Figure:
    """Samples of the shipped U-Nets, none chosen."""
    rows = []
    for name, family in {
        "digits on demand": "unet",
        "no labels, DDPM": "ddpm_unet",
        "cold, rows": "row cold_unet",
        "cold, columns": "col cold_unet",
    }.items():
        experiment = newest(family)
        if experiment:
            rows += lines(name, drawn(experiment, 2 * COLUMNS))
    return strips(rows)


def doubtful(experiment: Experiment, count: int = 400) -> Tensor:
    """Of `count` samples, those in which the classifier sees least of the label that was asked for."""
    index = torch.arange(count)
    images = torch.cat([last(trajectory(experiment, part, SEED)) for part in index.split(100)])
    _, logits = extractor_for("MNIST", WEIGHTS)(images)
    sure = logits.softmax(1)[index, index % experiment.config.classes]
    return images[sure.argsort()[:COLUMNS]]


def bad() -> plt.Figure:
    """Samples that went wrong."""
    cold, hot, told = newest("row cold_unet"), newest("ddpm_unet"), newest("unet")
    rows = []
    if cold:
        rows += [("cold, one step", drawn(cold, sampler="direct"))]
        rows += [("cold, Algorithm 2", drawn(cold, sampler="alg2"))]
    if hot:
        rows += [("DDIM, 3 calls, not clipped", drawn(hot, sampler="ddim", steps=3, clip=False))]
    if told:
        rows += [("guidance scale 15", drawn(told, guidance_scale=15.0)), ("least sure of 400", doubtful(told))]
    for family in tables.longest():
        states = tables.families()[family]
        for each in states[: min(2, len(states) - 1)]:
            rows += [(f"{each.family}, {each.epoch:g} epochs".replace("_", "-"), drawn(load_weights(each.path)))]
    return strips(rows)


def families() -> plt.Figure:
    """The same noise through the states of each family that `chosen` shows."""
    name = lambda each: f"{each.family}, {each.epoch:.3g}".replace("_", "-")
    return strips([(name(each), drawn(load_weights(each.path))) for each in tables.chosen()], cell=0.27)


def restored() -> plt.Figure:
    """Test digits restored from nothing but their averages, by every way back."""
    test = test_images()
    each = [(test.labels == digit).nonzero()[:2, 0] for digit in range(10)]  # two of each, and of some only one
    images = test.images[torch.stack(each).T.flatten()[:COLUMNS]]
    rows = [("the originals", images / 255)]
    for name, family in {"rows": "row cold_unet", "columns": "col cold_unet"}.items():
        experiment = newest(family)
        if experiment:
            rows += [(f"{name}: what is left", degrade_images(experiment, images, torch.ones(())))]
            for title, way in {
                "one step": "direct",
                "Algorithm 2": "alg2",
                "fresh noise": "alg1",
                "pinned averages": "pinned",
            }.items():
                rows += [(title, drawn(experiment, originals=images, sampler=way))]
    return strips(rows)


SAMPLES: dict[str, Callable[[], plt.Figure]] = {
    "forward": forward,
    "path": path,
    "good": good,
    "bad": bad,
    "families": families,
    "restored": restored,
}

# --- All of it ---


def outputs() -> list[str]:
    """The names of all files that a full run writes."""
    return ["numbers.tex", *(f"{name}.tex" for name in tables.TABLES), *(f"{name}.pdf" for name in CURVES | SAMPLES)]


def measure_floors(path: Path) -> None:
    """What real test images score in the numbers that the benchmarks use: the first of the file, or drawn from all."""
    data, test = load("MNIST", "train", DATA), load("MNIST", "test", DATA)
    eyes = extractor_for("MNIST", WEIGHTS)
    reference = Reference.of(eyes, data.images, DATA / "cache")
    with open(path, "w") as file:
        for which, some in {"first": test, "drawn": test.shuffled()}.items():
            for n in (1024, 2000, 10_000):
                shares = torch.bincount(some.labels[:n], minlength=10) / n
                record = {"which": which, **floor(some.images, reference, n)._asdict(), "labels": shares.tolist()}
                file.write(json.dumps(record) + "\n")


def save(figure: plt.Figure, path: Path, tight: bool) -> None:
    if tight:
        figure.tight_layout(pad=0.3)
    figure.savefig(path, metadata={"CreationDate": None})  # the same inputs, the same bytes
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tables", action="store_true", help="tables, numbers and curves only: no sampling")
    p.add_argument("--floors", action="store_true", help="measure results/floors.jsonl anew, before all else")
    p.add_argument("--out", type=Path, default=ROOT / "Report" / "generated", help="the folder that is written to")
    args = p.parse_args(argv)
    if args.floors:
        measure_floors(tables.RESULTS / "floors.jsonl")
        read.cache_clear()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "numbers.tex").write_text(tables.write_numbers())
    for name, make in tables.TABLES.items():
        (args.out / f"{name}.tex").write_text(make())
    with plt.rc_context(STYLE):
        for name, make in CURVES.items():
            save(make(), args.out / f"{name}.pdf", tight=True)
        for name, make in {} if args.tables else SAMPLES.items():
            print(f"drawing {name}", flush=True)
            save(make(), args.out / f"{name}.pdf", tight=False)
    print(f"wrote {len(list(args.out.iterdir()))} files to {args.out}")


if __name__ == "__main__":
    main()
