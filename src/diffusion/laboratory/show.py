"""What a run shows of itself: pictures, curves, and its last words."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusion import figures
from diffusion.laboratory.run import Run
from diffusion.metrics.scores import Scores


def draw(run: Run, figure: Callable[..., Path], *args: Any, name: str, **kwargs: Any) -> None:
    """Make a figure of that file name, on the main process, and note it for the report."""
    if run.is_main:
        run.written.append(figure(*args, path=run.options.out / name, **kwargs))


def draw_curves(run: Run, real: Scores) -> None:
    """Loss, FID and inception score against the epoch, with what real images score."""
    title, per_epoch = f"{run.name}, {run.config.dataset}", run.trainer.steps_per_epoch
    through = f"{title}\nN = {real.n:,}, {real.extractor}"
    draw(run, figures.losses, run.trainer.losses, per_epoch, title=title, name=f"Plots/losses_for_{run.name}.png")
    measured = [line for line in run.history if "fid" in line]
    for key, label, stem in (("fid", "FID", "fid"), ("inception_score", "inception score", "incept_score")):
        draw(
            run,
            figures.curve,
            [line["epoch"] for line in measured],
            [line[key] for line in measured],
            spread=[line["inception_score_sd"] for line in measured] if key == "inception_score" else None,
            title=through,
            label=label,
            real=getattr(real, key),
            name=f"Plots/{stem}_for_{run.name}.png",
        )


def report(run: Run, table: str) -> None:
    """Print the table, how long it took, and what was written where."""
    took = f"{run.trainer.step:,} training steps took {run.seconds:.0f} s"
    run.say(f"\n{table}\n{took}, this command {time.monotonic() - run.began:.0f} s; it wrote")
    folders: dict[Path, dict[str, None]] = {}
    for path in [*run.folder.files, *run.written]:
        folders.setdefault(path.parent, {})[path.name] = None
    for folder, names in folders.items():
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        run.say(f"  {folder}/: {', '.join([*names][:6])}{more}")
