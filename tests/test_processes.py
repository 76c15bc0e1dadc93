"""What two processes of torchrun compute together is what one computes alone: a training, and scores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import PartialState
from test_metrics import flat, pictures
from test_training import CONFIG, digits, run, trainer
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from diffusion import files
from diffusion.metrics.likeness import agreement
from diffusion.metrics.scores import Reference, score


def trained():
    """The state after 20 steps of 128 images in all."""
    return run(trainer(CONFIG.replace(batch_size=128), digits(300)), 20).state()


def scores(images):
    """The scores of some images, and their agreement with the label 2."""
    labels = torch.full((len(images),), 2)
    return [agreement(flat(), images, labels), *score(images, Reference.of(flat(), pictures(200, 1)))]


def work(folder):
    """What each of the processes does; of 101 images the first has 60, then all, and the second the others."""
    state, rank = trained(), PartialState().process_index
    parts = [pictures(101).tensor_split([share])[rank] for share in (60, 101)]
    results = {"processes": PartialState().num_processes, "state": state, "scores": [*map(scores, parts)]}
    files.save(folder / f"{rank}.pth", results)


def test_two_processes_train_with_64_images_each_as_one_does_with_128_and_score_as_one(tmp_path):
    """Started by torchrun's own launcher, as forks of one that has imported all; the command is in test_part_1.py."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "tests"]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, tmp_path]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    state, scored = trained(), scores(pictures(101))
    assert 0.1 < scored[0] < 0.9
    for rank in (0, 1):
        one_of_two = files.load(tmp_path / f"{rank}.pth")
        assert one_of_two["processes"] == 2
        for part, atol, rtol in (("denoiser", 1e-5, 0), ("ema", 1e-5, 0), ("losses", 1e-6, 1e-5)):
            torch.testing.assert_close(one_of_two["state"][part], state[part], atol=atol, rtol=rtol)
        for each in one_of_two["scores"]:
            assert each[:6] == pytest.approx(scored[:6], rel=1e-6) and each[6:] == scored[6:]


if __name__ == "__main__":
    address = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": "two"}
    two = LaunchConfig(1, 1, 2, **address, start_method="fork", monitor_interval=0.05)
    elastic_launch(two, work)(Path(sys.argv[1]))
