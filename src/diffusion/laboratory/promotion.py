"""How a version dev of `versions` becomes main: by a word, by an answer, or by its loss."""

import contextlib
import sys
from pathlib import Path

from diffusion import files
from diffusion.data.datasets import Dataset
from diffusion.errors import UserError
from diffusion.experiment.build import Experiment
from diffusion.experiment.weights import load_weights, save_weights
from diffusion.laboratory.losses import held_out_loss
from diffusion.method.codec import Latents


def promote(dev: Path, main: Path, how: str, held_out: Dataset) -> str:
    """Make dev main, if `how` of PROMOTE says so; the old main is kept. What was done, for people to read."""
    experiment, asked = load_weights(dev), how
    if how == "best":
        how, why = _is_better(experiment, main, held_out)
        asked = f"best: {why}"
    if how == "ask":
        if not sys.stdin.isatty():
            return f"{dev} was not promoted to {main}: there is no terminal to ask at (--promote yes does it unasked)"
        how = "no"
        with contextlib.suppress(EOFError):  # Ctrl-D is no answer
            how = "yes" if input(f"promote {dev} to {main}? [y/N] ").strip().lower() in ("y", "yes") else "no"
    if how != "yes":
        return f"{dev} was not promoted to {main} ({asked})"
    kept = f"; the old one is kept in {files.put_aside(main)}" if main.is_file() else ""
    save_weights(main, experiment)
    return f"promoted to {main} ({asked}){kept}"


def _is_better(dev: Experiment, main: Path, held_out: Dataset) -> tuple[str, str]:
    if not main.is_file():
        return "yes", "there was no main"
    old = load_weights(main)
    if (
        isinstance(dev.codec, Latents)
        and not dev.config.is_codec
        and dev.codec.digest != getattr(old.codec, "digest", "")
    ):
        raise UserError(
            f"{main} works on the latents of another codec, so their losses say nothing: --promote yes or no"
        )
    new_loss, old_loss = held_out_loss(dev, held_out), held_out_loss(old, held_out)
    words = f"loss {new_loss:.4f} against {old_loss:.4f} on {len(held_out):,} held-out training images"
    return ("yes" if new_loss < old_loss else "no"), words
