"""What a run shows of itself: pictures, curves, tables, and its last words."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from diffusion import figures
from diffusion.experiment.samplers import SamplingOptions
from diffusion.experiment.sampling import build_sampler
from diffusion.laboratory.judge import Judge
from diffusion.laboratory.run import Run
from diffusion.metrics.likeness import Likeness
from diffusion.metrics.scores import Scores

COLUMNS = {"FID": ("fid", ".2f"), "IS": ("inception_score", ".2f"), "KID": ("kid", ".4f")}

# --- Pictures ---


def draw_grid(run: Run, images: Tensor, name: str, columns: int = 4) -> None:
    """Write images (N, C, H, W) as one picture of that file name."""
    if run.is_main:
        run.written.append(figures.grid(images, run.options.out / name, columns))


def draw_losses(run: Run) -> None:
    """The loss of every step."""
    if run.is_main:
        path, title = run.options.out / f"Plots/losses_for_{run.name}.png", f"{run.name}, {run.config.dataset}"
        run.written.append(figures.losses(run.trainer.losses, run.trainer.steps_per_epoch, path, title))


def draw_curves(judge: Judge) -> None:
    """Loss, FID and inception score against the epoch, with what real images score."""
    run, real = judge.run, judge.floor
    if not run.is_main:
        return
    title, path = f"{run.name}, {run.config.dataset}", lambda stem: run.options.out / f"Plots/{stem}_for_{run.name}.png"
    draw_losses(run)
    title += f"\nN = {real.n:,}, {real.extractor}"
    measured = [line for line in run.history if "fid" in line]
    scores = [("fid", "FID", "fid"), ("inception_score", "inception score", "incept_score")]
    for key, label, stem in scores if measured else []:
        epochs, values = ([line[each] for line in measured] for each in ("epoch", key))
        sd = [line["inception_score_sd"] for line in measured] if key == "inception_score" else None
        run.written.append(figures.curve(epochs, values, sd, path(stem), title, label, getattr(real, key)))


# --- Tables ---


def row(name: str, *cells: str, width: int = 12) -> str:
    """A line of a table, its cells below those of the others."""
    return f"{name:<26}" + "".join(f"{cell:>{width}}" for cell in cells)


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation, or the value if there is only one."""
    parts = [statistics.mean(values), *([statistics.stdev(values)] if len(values) > 1 else [])]
    return " ± ".join(f"{part:{form}}" for part in parts)


def table(judge: Judge, finals: list[Scores]) -> str:
    """Scores over seeds, the floor in the same columns, and what they were measured with."""
    run, real = judge.run, judge.floor
    loss = next((f"{line['loss']:.4f}" for line in reversed(run.history) if line["loss"] is not None), "–")
    cells = lambda scores: [spread([getattr(each, key) for each in scores], form) for key, form in COLUMNS.values()]
    seeds = f"mean ± sd over {len(finals)} seeds" if len(finals) > 1 else "one seed, so no spread"
    lines = [
        row("", "loss", *COLUMNS, width=18),
        row(run.name, loss, *cells(finals), width=18),
        row("floor (real test images)", "–", *cells([real]), width=18),
        f"N = {real.n:,} images a seed, {seeds}; against all {real.n_reference:,} training images",
        f"features: {real.extractor}, sha256 {real.sha256[:16]}",
    ]
    return "\n".join(lines + [f"warning: {finals[0].warning}"] * bool(finals[0].warning))


def likeness_table(judge: Judge, rows: dict[str, tuple[Scores, Likeness]]) -> str:
    """The samplers of cold diffusion on fully averaged test images, side by side."""
    lines = [row("restored test images", "FID", "IS", "SSIM", "RMSE", "label kept", "mean grey")]
    scored = lambda scores: (f"{scores.fid:.2f}", f"{scores.inception_score:.2f}")
    for name, (scores, like) in rows.items():
        steps = build_sampler(judge.run.experiment, SamplingOptions(name)).steps
        cells = f"{like.ssim:.3f}", f"{like.rmse:.3f}", f"{like.agreement:.1%}", f"{like.mean:.4f}"
        lines.append(row(f"{name}, {steps} step{'s' if steps > 1 else ''}", *scored(scores), *cells))
    real = f"{like.agreement_original:.1%}", f"{like.mean_original:.4f}"
    return "\n".join([*lines, row("the originals", *scored(judge.floor), "1.000", "0.000", *real)])


def report(run: Run, text: str) -> None:
    """Print the text, how long the run took, and what was written where."""
    took = f"{run.trainer.step:,} training steps took {run.seconds:.0f} s"
    run.say(f"\n{text}\n{took}, this command {time.monotonic() - run.began:.0f} s; it wrote")
    folders: dict[Path, list[str]] = {}
    for path in dict.fromkeys([*run.folder.files, *run.written]):
        folders.setdefault(path.parent, []).append(path.name)
    for folder, names in folders.items():
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        run.say(f"  {folder}/: {', '.join(names[:6])}{more}")
    weights = [path for path in run.written if path.suffix == ".pth"]
    if weights and not run.config.is_codec:
        run.say(f"to draw from it: python src generate --weights {weights[-1]}")
