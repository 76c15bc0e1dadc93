"""Pictures: grids of images and curves of a training. The only place that knows matplotlib."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files, never a window: the same on a laptop, a server and in CI
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from torch import Tensor

from diffusion.files import write_atomically


def grid(images: Tensor, path: Path, columns: int = 4, scale: int = 4) -> Path:
    """Write a `sheet` of images (N, C, H, W) in [0, 1] as a PNG."""
    picture = sheet(images, columns, scale)
    return write_atomically(path, lambda file: picture.save(file, "PNG"))


def sheet(images: Tensor, columns: int = 8, scale: int = 3) -> Image.Image:
    """Images (N, C, H, W) in [0, 1] as one picture, row by row, each pixel `scale` wide, a line between images."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    paper = np.full((channels, rows * (height + 1) + 1, columns * (width + 1) + 1), 64, np.uint8)
    for i, image in enumerate((images.float().clamp(0, 1) * 255).round().byte().cpu().numpy()):
        top, left = i // columns * (height + 1) + 1, i % columns * (width + 1) + 1
        paper[:, top : top + height, left : left + width] = image
    pixels = paper[0] if channels == 1 else paper.transpose(1, 2, 0)
    return Image.fromarray(pixels).resize((scale * paper.shape[2], scale * paper.shape[1]), Image.NEAREST)


def losses(values: Sequence[float], steps_per_epoch: int, path: Path, title: str) -> Path:
    """The loss of every step, thin, and its mean over each epoch (or twentieth of a short run), thick."""
    figure, axes = plt.subplots(figsize=(6, 4))
    if len(values):
        values = np.asarray(values)
        width = max(1, min(steps_per_epoch, len(values) // 20))
        whole = len(values) // width * width
        axes.plot(np.arange(1, len(values) + 1) / steps_per_epoch, values, lw=0.5, alpha=0.4, label="each step")
        means = values[:whole].reshape(-1, width).mean(1)
        axes.plot((np.arange(len(means)) + 1) * width / steps_per_epoch, means, label=f"mean over {width} steps")
        axes.set_yscale("log")
        axes.legend()
    return _finish(figure, axes, path, title, "epoch", "loss")


def curve(epochs: Sequence[int], values: Sequence[float], spread: Sequence[float] | None, path: Path,
          title: str, label: str, lines: dict[str, float] | None = None) -> Path:  # fmt: skip
    """One score against the epoch, with error bars, and named horizontal lines (what real images score)."""
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.errorbar(epochs, values, yerr=spread, marker="o", ms=3, capsize=2)
    for (name, height), style in zip((lines or {}).items(), ("--", ":", "-.")):
        axes.axhline(height, ls=style, color="grey", label=f"{name}: {height:.2f}")
    if lines:
        axes.legend()
    if max(epochs) >= 2:  # or the ticks of a short run would all be between two of them
        axes.xaxis.get_major_locator().set_params(integer=True)
    return _finish(figure, axes, path, title, "epoch", label)


def _finish(figure: plt.Figure, axes: plt.Axes, path: Path, title: str, x: str, y: str) -> Path:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    plt.close(figure)
    return write_atomically(path, lambda file: file.write(picture.getvalue()))


def best(values: Sequence[float], path: Path, title: str, label: str) -> Path:
    """A score, the lower the better, of trials in the order in which they ended, and the best so far."""
    figure, axes = plt.subplots(figsize=(6, 4))
    order = np.arange(1, len(values) + 1)
    axes.plot(order, values, "o", ms=4, alpha=0.6, label="each trial")
    axes.step(order, np.minimum.accumulate(values), where="post", label="best so far")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if max(values) > 10 * min(values) > 0:
        axes.set_yscale("log")
    axes.legend()
    return _finish(figure, axes, path, title, "trials ended", label)


def parallel(rows: Sequence[dict[str, Any]], path: Path, title: str) -> Path:
    """A line a trial through the values of its settings; the last is its score, and the best are drawn darkest."""
    names = list(rows[0])
    figure, axes = plt.subplots(figsize=(max(6, 1.5 * len(names)), 4.5))
    heights = np.stack([_along(axes, i, [row[name] for row in rows]) for i, name in enumerate(names)], axis=1)
    ranks = np.argsort(np.argsort([row[names[-1]] for row in rows])) / max(1, len(rows) - 1)  # 0 is the best
    for line, rank in sorted(zip(heights, ranks), key=lambda each: -each[1]):
        axes.plot(range(len(names)), line, color=plt.cm.viridis(0.85 * rank), alpha=1 - rank / 3, lw=2 - rank)
    axes.set_xticks(range(len(names)), names)
    axes.set(yticks=[], xlim=(-0.15, len(names) - 0.6))
    return _finish(figure, axes, path, title, "", "")


def _along(axes: plt.Axes, at: int, values: Sequence[Any]) -> np.ndarray:
    """The heights in [0, 1] of values on an upright axis, whose ends or, if they are words, levels are written there.

    Numbers over a wide range stand at their logarithms.
    """
    numbers = all(isinstance(value, int | float) for value in values)
    levels = sorted(set(values), key=None if numbers else str)
    marks = np.array(levels if numbers else range(len(levels)), float)
    if numbers and marks[0] > 0 and marks[-1] > 5 * marks[0]:
        marks = np.log(marks)
    span = marks[-1] - marks[0]
    place = dict(zip(levels, (marks - marks[0]) / span if span else [0.5]))
    axes.axvline(at, color="black", lw=0.8)
    for level in {levels[0], levels[-1]} if numbers else levels:
        text = f"{level:.3g}" if isinstance(level, float) else str(level)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        axes.text(at + 0.03, place[level], text, va="center", fontsize=8, bbox=box, zorder=3)
    return np.array([place[value] for value in values])
