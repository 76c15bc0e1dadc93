"""What is around a command and is not its own: notebooks, terminals, encodings, disks. It works there, and alters none."""

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

SRC = Path(__file__).parents[1] / "src"


def run(*words: object, env: dict[str, str] | None = None, **settings) -> subprocess.CompletedProcess:
    """Python with our sources, as a process of its own."""
    env = os.environ | {"PYTHONPATH": str(SRC)} | (env or {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.run([sys.executable, *map(str, words)], env=env, timeout=120, **pipes | settings)


# --- Notebooks ---


def test_a_notebooks_backend_style_and_figures_are_left_alone(tmp_path):
    from matplotlib import pyplot, rcParams, use

    from diffusion import figures

    use("svg")
    mine, style = pyplot.figure(), dict(rcParams)
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("lr", 1, 2), n_trials=3)
    try:
        figures.losses([1.0, 2.0], 1, tmp_path / "losses.png", "")
        figures.curve([0, 1], [2.0, 1.0], None, tmp_path / "curve.png", "", "FID", 0.5)
        assert len([*figures.trials(study, tmp_path / "sweep"), *tmp_path.glob("[lc]*.png")]) == 4
        assert pyplot.get_backend() == "svg" and dict(rcParams) == style
        assert pyplot.get_fignums() == [mine.number] and pyplot.gcf() is mine
    finally:
        pyplot.close("all")
        use("agg")


def test_importing_figures_chooses_no_backend():
    code = "import matplotlib; matplotlib.use('svg'); import diffusion.figures; print(matplotlib.get_backend())"
    assert run("-c", code).stdout == "svg\n"
    code = "import sys; import diffusion.figures; print('matplotlib.pyplot' in sys.modules)"
    assert run("-c", code).stdout == "False\n"
