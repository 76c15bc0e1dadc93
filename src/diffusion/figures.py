"""Pictures: grids of images, curves of a training, plots of a sweep. The only place that knows matplotlib."""

import contextlib
import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffusion.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna import Study

Numbers = Sequence[float]


def grid(images: Tensor, path: Path, columns: int = 4, scale: int = 4) -> Path:
    """Write a `sheet` of images (N, C, H, W) in [0, 1] as a PNG."""
    picture = sheet(images, columns, scale)
    return write_atomically(path, lambda file: picture.save(file, "PNG"))


def captioned(images: Tensor, captions: Sequence[str], path: Path, columns: int = 6, scale: int = 4) -> Path:
    """Write images (N, C, H, W) in [0, 1] as a PNG, each with its caption under it."""
    cells = [sheet(image[None], 1, scale).convert("RGB") for image in images]
    width, height = cells[0].size
    font = ImageFont.load_default(11)
    texts = ["\n".join(textwrap.wrap(text, max(8, width // 6))) for text in captions]
    lines = max(text.count("\n") for text in texts) + 1
    columns, tall = min(columns, len(cells)), height + 13 * lines + 6
    paper = Image.new("RGB", (columns * (width + 8), -(-len(cells) // columns) * tall), "white")
    for i, (cell, text) in enumerate(zip(cells, texts)):
        at = (i % columns * (width + 8) + 4, i // columns * tall)
        paper.paste(cell, at)
        ImageDraw.Draw(paper).multiline_text((at[0], at[1] + height + 2), text, "black", font, spacing=2)
    return write_atomically(path, lambda file: paper.save(file, "PNG"))


def sheet(images: Tensor, columns: int = 8, scale: int = 3) -> Image.Image:
    """Images (N, C, H, W) in [0, 1] as one picture, row by row, a pixel `scale` wide, a line around each of several."""
    parts = (images.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()  # (N, H, W, C)
    count, height, width, channels = parts.shape
    columns, paper = min(columns, count), parts[0]
    if count > 1:
        paper = np.full((-(-count // columns) * (height + 1) + 1, columns * (width + 1) + 1, channels), 64, np.uint8)
        for i, part in enumerate(parts):
            top, left = i // columns * (height + 1) + 1, i % columns * (width + 1) + 1
            paper[top : top + height, left : left + width] = part
    picture = Image.fromarray(paper if channels == 3 else paper[..., 0])
    return picture.resize((scale * picture.width, scale * picture.height), Image.NEAREST)


def losses(values: Numbers, steps_per_epoch: int, path: Path, title: str) -> Path:
    """The loss of every step, thin, and its mean over each epoch (or twentieth of a short run), thick."""
    axes = _axes()
    if len(values):
        values = np.asarray(values)
        width = max(1, min(steps_per_epoch, len(values) // 20))
        whole = len(values) // width * width
        axes.plot(np.arange(1, len(values) + 1) / steps_per_epoch, values, lw=0.5, alpha=0.4, label="each step")
        means = values[:whole].reshape(-1, width).mean(1)
        axes.plot((np.arange(len(means)) + 1) * width / steps_per_epoch, means, label=f"mean over {width} steps")
        axes.set_yscale("log")
        axes.legend()
    axes.grid(alpha=0.3)
    return _save(axes, path, title=title, xlabel="epoch", ylabel="loss")


def curve(
    epochs: Numbers, values: Numbers, spread: Numbers | None, path: Path, title: str, label: str, real: float
) -> Path:
    """One score against the epoch, with error bars, and a line at what real test images score."""
    axes = _axes()
    axes.errorbar(epochs, values, yerr=spread, marker="o", ms=3, capsize=2)
    axes.axhline(real, ls="--", color="grey", label=f"real test images: {real:.2f}")
    axes.legend()
    axes.grid(alpha=0.3)
    if max(epochs) >= 2:  # or the ticks of a short run would all be between two of them
        axes.xaxis.get_major_locator().set_params(integer=True)
    return _save(axes, path, title=title, xlabel="epoch", ylabel=label)


def confusion(counts: Tensor, names: Sequence[str], path: Path, title: str) -> Path:
    """How often (K, K) images of a class, by row, are taken for another, by column; the mistakes are coloured."""
    axes, share = _axes(), counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    mistakes = share.clone().fill_diagonal_(0)
    axes.imshow(mistakes.cpu().numpy(), cmap="Reds", vmin=0, vmax=max(0.01, mistakes.max().item()))
    ticks, size = range(len(names)), 7 if len(names) <= 12 else 3
    axes.set_xticks(ticks, names, rotation=90, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    for row, column in counts.nonzero().tolist():
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=size - 1)
    return _save(axes, path, title=title, xlabel="answered", ylabel="label")


def trials(study: "Study", stem: Path) -> list[Path]:
    """The FID of a sweep's trials: with their settings, the best darkest, and in their order, with the best so far."""
    from optuna.visualization import matplotlib as plots  # seconds to import

    written = []
    for name, plot in (("parallel", plots.plot_parallel_coordinate), ("best", plots.plot_optimization_history)):
        with _pyplot_apart(), warnings.catch_warnings(action="ignore"):
            axes = plot(study, target_name="FID")
            axes.figure.set_size_inches(8, 4.5)
            written.append(_save(axes, stem.with_name(f"{stem.name}_{name}.png"), title=study.study_name))
    return written


@contextlib.contextmanager
def _pyplot_apart() -> Iterator[None]:
    """pyplot without windows, for what draws with nothing else; afterwards the caller has it back as it was."""
    from matplotlib import get_backend, pyplot

    backend, figures = get_backend(), pyplot.get_fignums()
    with pyplot.rc_context(), pyplot.ioff():
        try:
            pyplot.switch_backend("agg")
            yield
        finally:
            for number in set(pyplot.get_fignums()).difference(figures):
                pyplot.close(number)
            with contextlib.suppress(ImportError):  # it was named only, and there is no such screen
                pyplot.switch_backend(backend)


def _axes() -> "Axes":
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # files, never a window: no backend is asked for
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    FigureCanvasAgg(figure)
    return figure.subplots()


def _save(axes: "Axes", path: Path, **words: str) -> Path:
    axes.set(**words)
    picture = io.BytesIO()
    axes.figure.savefig(picture, format="png", dpi=120, bbox_inches="tight")
    return write_atomically(path, lambda file: file.write(picture.getvalue()))
