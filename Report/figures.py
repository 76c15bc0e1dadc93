"""The pictures of the report: curves from the runs' records, and samples of fixed seeds from the shipped weights."""

import logging
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import records
import torch
from records import ROOT, WEIGHTS, Record, grouped, means, model, read
from torch import Tensor
from torch.nn.functional import pad

from diffusion.api.generation import degrade_images, generate, trajectory
from diffusion.experiment.build import Experiment, build
from diffusion.experiment.presets import COLD, DDPM
from diffusion.experiment.samplers import SamplingOptions

logging.getLogger("fontTools").setLevel(logging.ERROR)  # matplotlib's own fonts have odd dates
DATA, WIDTH = ROOT / "data", 6.3  # inches of a line of text
SEED, COLUMNS = 0, 16


def training() -> plt.Figure:
    """Loss and FID against epochs, FID of what is shipped, or of the history if that was scored more often."""
    figure, (hot, cold, scores) = plt.subplots(1, 3, figsize=(WIDTH, 2.4))
    for i, states in enumerate(grouped(records.shipped(), "family")):
        family, color = states[0]["family"], f"C{i}"
        history, sha256 = records.histories()[family], records.classifier()["sha256"]
        losses = [(r["epoch"], r["loss"]) for r in history if r["loss"]]
        (hot if states[0]["process"] == "gaussian" else cold).plot(*zip(*losses), color=color, marker=".")
        marks = max(states, [r for r in history if r.get("sha256") == sha256 and not r["warning"]], key=len)
        x, y, sd = zip(*((r["epoch"], r["fid"], r.get("fid_sd", 0)) for r in marks))
        scores.errorbar(x, y, yerr=sd, color=color, label=family.replace("_", "-"))
    floors = [r["floor"] for r in records.shipped()]
    scores.axhspan(min(floors), max(floors), color="grey", alpha=0.25, lw=0, label="floors")
    for panel, title in ((hot, "loss, part 1"), (cold, "loss, part 2"), (scores, "FID")):
        panel.set(title=title, xlabel="epoch", yscale="log")
    figure.legend(loc="outside lower center", ncols=5)
    return figure


def calls() -> plt.Figure:
    """FID against NFE, by sampler and of the model that was distilled."""
    figure, panel = plt.subplots(figsize=(WIDTH, 2.8))
    for group in records.samplers():
        name = group[0]["name"].strip("`").replace("_", "-")
        panel.plot(*zip(*sorted((r["calls"], r["fid"]) for r in group)), label=name)
    ticks = [1, 2, 3, 4, 5, 10, 20, 50, 100, 1000]
    panel.axhline(group[0]["floor"], color="grey", ls="--", lw=0.8, marker="", label="floor")
    panel.set(xlabel="NFE", ylabel="FID", xscale="log", yscale="log")
    panel.set_xticks(ticks, map(str, ticks))
    panel.xaxis.minorticks_off()
    panel.legend()
    return figure


def sizes() -> plt.Figure:
    """FID and labels against the parameters that a latent model needs to draw."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.4))
    groups = [means(group) for group in records.latent_size()]
    size = [r["to_draw"] for r in groups]
    for scale in ("1", "1.5"):
        left.plot(size, [r[f"fid_{scale}"] for r in groups], label=f"guidance scale {scale}")
        right.plot(size, [r[f"agreement_{scale}"] for r in groups], label=f"guidance scale {scale}")
    left.plot(size, [r["codec_fid"] for r in groups], label="reconstructions")
    left.axhline(groups[0]["floor"], color="grey", ls="--", lw=0.8, marker="", label="floor")
    left.set(xlabel="parameters to draw", ylabel="FID", xscale="log", yscale="log")
    right.set(xlabel="parameters to draw", ylabel="label seen", xscale="log")
    for panel in (left, right):
        panel.set_xticks([each * 1000 for each in (5, 10, 30, 100, 300)], ["5 k", "10 k", "30 k", "100 k", "300 k"])
        panel.xaxis.minorticks_off()
        panel.legend()
    return figure


def guided() -> plt.Figure:
    """What guidance buys and what it costs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.2))
    scales = list(map(means, records.evaluations("guidance", "guidance_scale")))
    names = {"fid": "FID", "agreement": "label seen"}
    for panel, key in ((left, "fid"), (right, "precision"), (right, "recall"), (right, "agreement")):
        panel.plot([r["guidance_scale"] for r in scales], [r[key] for r in scales], label=names.get(key, key))
        panel.set(xlabel="guidance scale")
    left.set(yscale="log")
    right.set(ylim=(0, 1.05))
    left.axhline(scales[0]["floor"], color="grey", ls="--", lw=0.8, marker="", label="floor")
    for panel in (left, right):
        panel.legend(handlelength=1.2, labelspacing=0.2)
    return figure


def labels() -> plt.Figure:
    """Which digits are drawn by samplers of the same network after equally many steps, and real digits."""
    figure, panel = plt.subplots(figsize=(WIDTH, 1.75))
    shown = ["clean alg2", "clean alg1", "noise alg1", "noise pinned", "hot ddpm"]
    rows = {f"{r['recipe']} {r['way']}": r for r in map(means, records.hot_cold())}
    for i, name in enumerate(shown):
        label = rows[name]["sampler"] + ", no noise" * name.startswith("clean")
        panel.bar(np.arange(10) + 0.16 * (i - 2), rows[name]["labels"], 0.16, label=label)
    real = next(r["labels"] for r in read("floors") if r["which"] == "drawn")
    panel.hlines(real, np.arange(10) - 0.45, np.arange(10) + 0.45, color="black", label="real digits")
    panel.set(xticks=range(10), xlabel="digit that the classifier sees", ylabel="share", ylim=(0, 0.27))
    panel.grid(axis="x", visible=False)
    panel.legend(ncols=3, loc="upper center")
    return figure


def minutes() -> plt.Figure:
    """FID over the floor, and labels seen, against minutes of training: mean and deviation over training seeds."""
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 2.4))
    for row in grouped([r for group in records.minutes() for r in group], "threads", "row"):
        threads = row[0]["threads"]
        label = f"{row[0]['name'].split(',')[0].strip('`').replace('_', '-')}, {threads} thread{'s' * (threads > 1)}"
        for panel, key in zip(panels, ("floors", "agreement")):
            values = {each[0]["minutes"]: [r[key] for r in each] for each in grouped(row, "minutes")}
            spread = [np.std(each, ddof=1) if len(each) > 1 else 0 for each in values.values()]
            panel.errorbar([*values], [np.mean(each) for each in values.values()], yerr=spread, label=label, capsize=2)
    for panel, what in zip(panels, ("FID over the floor", "label seen")):
        panel.set(xlabel="minutes", ylabel=what, xscale="log")
        panel.set_xticks([1, 2, 5, 15], ["1", "2", "5", "15"])
        panel.xaxis.minorticks_off()
    panels[0].set(yscale="log")
    panels[1].set(ylim=(0, 1.05))
    panels[1].legend(loc="center right")
    return figure


CURVES = {make.__name__: make for make in (training, calls, guided, labels, sizes, minutes)}


def strips(rows: dict[str, Tensor], times: np.ndarray | tuple = (), cell: float = 0.29) -> plt.Figure:
    """Rows of images (N, 1, H, W) in [0, 1], about `cell` inches wide, beside their names and under their times."""
    images = torch.stack([row.float() for row in rows.values()])[:, :, 0]  # (rows, N, H, W)
    greys = (images.clamp(0, 1) * 15).round() * 17  # 16 of them, which print alike in half the bytes
    large = greys.repeat_interleave(2, 2).repeat_interleave(2, 3)  # here, as viewers would blur them
    paper = pad(large, (1, 1), value=255).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)  # (rows * H, N * W)
    (tall, wide), (height, width) = large.shape[:2], paper.shape
    figure, panel = plt.subplots(figsize=(1.6 + cell * wide, (0.3 if len(times) else 0.05) + cell * tall))
    figure.get_layout_engine().set(rect=(0.03, 0, 0.97, 1))  # names are a little longer than it believes
    panel.imshow(paper, cmap="gray", vmin=0, vmax=255, interpolation="none")
    panel.set_yticks((np.arange(tall) + 0.5) * height / tall, rows)
    panel.set_xticks((np.arange(len(times)) + 0.5) * width / wide, [f"$t={t:g}$" for t in times])
    panel.tick_params(length=0, labeltop=True, labelbottom=False, labelsize=8)
    panel.set_frame_on(False)
    panel.grid(visible=False)
    return figure


def drawn(model: Experiment, count: int = COLUMNS, originals: Tensor | None = None, **options) -> Tensor:
    return generate(model, torch.arange(count), SamplingOptions(**options), seed=SEED, originals=originals)


def by_name(found: list[Record]) -> dict[str, Tensor]:
    """Samples of shipped states."""
    return {f"{r['family']}, {r['epoch']:.3g} epochs".replace("_", "-"): drawn(r["model"]) for r in found}


def longest() -> list[list[Record]]:
    """The states of the hot and of the cold family that has most."""
    return [max(grouped(kind, "family"), key=len) for kind in grouped(records.shipped(), "process")]


def test_images() -> Any:
    from diffusion.data.datasets import load  # here, as the curves can do without torchvision and its second

    return load("MNIST", "test", DATA).shuffled()


def forward() -> plt.Figure:
    """The processes: one real digit on its way to the prior."""
    times, clean = torch.linspace(0, 1, 9, dtype=torch.float64), COLD["cold_unet"].replace(noise=0)
    configs = {"Gaussian, linear betas": DDPM["default"], "Gaussian, rectified": DDPM["ddpm_unet"]}
    configs |= {"rows, 28 groups": clean, "columns, 28 groups": clean.replace(axis="col")}
    configs |= {"rows, 7 groups": clean.replace(timesteps=7), "rows, with noise": COLD["cold_unet"]}
    images = test_images().images[3:4].expand(9, -1, -1, -1)
    return strips({name: degrade_images(build(c), images, times) for name, c in configs.items()}, times.numpy(), 0.46)


def path() -> plt.Figure:
    """States on the way back, from the prior to a digit."""
    models = {"DDPM": "ddpm_unet", "DDIM": "ddpm_unet"}
    models |= {"rows, fresh noise": "row cold_unet", "columns, fresh noise": "col cold_unet"}
    rows = {}
    for name, family in models.items():
        options = SamplingOptions(sampler="ddim" if name == "DDIM" else None)
        states = torch.stack([x[1] for x in trajectory(model(family), torch.arange(2), options, seed=SEED)])
        rows[name] = states[torch.linspace(0, len(states) - 1, 9).round().long()]
    return strips(rows, np.linspace(1, 0, 9), cell=0.46)


def good() -> plt.Figure:
    """Uncurated samples of the shipped U-Nets."""
    models = {"class-conditional": "unet", "unconditional, DDPM": "ddpm_unet"}
    models |= {"cold, rows": "row cold_unet", "cold, columns": "col cold_unet"}
    rows = {}
    for name, family in models.items():
        rows[name], rows[" " * len(rows)] = drawn(model(family), 2 * COLUMNS).split(COLUMNS)
    return strips(rows)


def bad() -> plt.Figure:
    """Samples that went wrong; of 400 those in which the classifier sees least of their label."""
    from diffusion.metrics.features import extractor_for

    cold, unet, index = model("row cold_unet"), model("unet"), torch.arange(400)
    images = generate(unet, index, seed=SEED, batch_size=100)
    _, logits = extractor_for("MNIST", WEIGHTS)(images)
    doubtful = logits.softmax(1)[index, index % unet.config.classes].argsort()[:COLUMNS]
    rows = {
        "cold, one step": drawn(cold, sampler="direct"),
        "cold, Algorithm 2": drawn(cold, sampler="alg2"),
        "DDIM, 3 NFE, not clipped": drawn(model("ddpm_unet"), sampler="ddim", steps=3, clip=False),
        "guidance scale 15": drawn(unet, guidance_scale=15.0),
        "least sure of 400": images[doubtful],
    }
    return strips(rows | by_name([r for states in longest() for r in states[:2]]))


def families() -> plt.Figure:
    """The same noise through every state of the longest families, and the last of each other."""
    whole = [states[0]["family"] for states in longest()]
    families = grouped(records.shipped(), "family")
    return strips(by_name([r for f in families for r in (f if f[0]["family"] in whole else f[-1:])]), cell=0.27)


def restored() -> plt.Figure:
    """Test digits restored from nothing but their averages, by every sampler."""
    test = test_images()
    two = [(test.labels == digit).nonzero()[:2, 0] for digit in range(10)]  # of each, and of some only one
    images = test.images[torch.stack(two).T.flatten()[:COLUMNS]]
    rows = {"the originals": images / 255}
    for lines in ("row", "col"):
        cold = model(f"{lines} cold_unet")
        rows[f"{lines}s: what is left"] = degrade_images(cold, images, torch.ones(()))
        for sampler in ("direct", "alg2", "alg1", "pinned"):
            rows[f"{lines}s: {records.SAMPLERS[sampler]}"] = drawn(cold, originals=images, sampler=sampler)
    return strips(rows)


SAMPLES = {make.__name__: make for make in (forward, path, good, bad, families, restored)}
