"""Consistency distillation on data of which every path is known, and as one more objective of the trainer."""

from dataclasses import replace

import pytest
import torch
from oracles import Impulses, M, S, flow, gaussian, law
from test_training import digits, run, same

from diffusion import files
from diffusion.errors import UserError
from diffusion.experiment.build import build
from diffusion.experiment.presets import PRESETS
from diffusion.experiment.recipe import Plan
from diffusion.experiment.weights import begin_from_teacher, save_weights
from diffusion.laboratory import run as laboratory
from diffusion.laboratory.flags import RunOptions
from diffusion.method.consistency import neighbour
from diffusion.method.noise import Noise
from diffusion.method.process import Gaussian
from diffusion.method.sampler import last, sample
from diffusion.method.schedule import Cosine, Rectified
from diffusion.training.objectives import Consistency
from diffusion.training.trainer import Trainer

TEACHER = PRESETS["unet"].replace(hidden=(8, 8), batch_size=16)
PUPIL = PRESETS["unet_few"].replace(hidden=(8, 8), batch_size=16, teacher_steps=8)


def end_of_path(schedule):
    """The perfect consistency function of data N(M, S^2): where the flow through x_t ends."""

    def denoiser(x_t, t, cond=None):
        alpha, sigma = (each.reshape(-1, *[1] * (x_t.dim() - 1)).to(x_t) for each in schedule(t))
        return M + S * (x_t - alpha * M) / (alpha**2 * S**2 + sigma**2).sqrt()

    return denoiser


@pytest.mark.parametrize("schedule", [Rectified(), Cosine()])
def test_the_neighbour_is_on_the_path_to_second_order(schedule):
    z, t = torch.tensor([-2.0, -0.5, 1.0, 3.0]).double(), torch.tensor([0.9, 0.6, 0.4, 0.25]).double()
    where = lambda t: flow(schedule, z, t).reshape(-1, 1, 1, 1)
    errors = []
    for steps in (16, 32):
        s = t - 1 / steps
        errors.append((neighbour(gaussian(schedule), schedule, where(t), t, s) - where(s)).abs().max().item())
    assert errors[1] < 1e-3 and errors[1] < errors[0] / 6  # one step of a second-order solver errs by the third power


def test_the_last_neighbour_is_the_image_itself():
    t, s = torch.tensor([0.02]).double(), torch.zeros(1).double()
    x_t = torch.randn(1, 1, 2, 2).double()
    assert torch.equal(neighbour(lambda x, t, cond: 0.3 * x, Rectified(), x_t, t, s), 0.3 * x_t)


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
@pytest.mark.parametrize("schedule", [Rectified(), Cosine()])
def test_the_perfect_pupil_draws_the_data_in_any_number_of_calls(schedule, steps):
    process, noise = Gaussian(schedule, eta=float("inf")), Impulses()
    x_1 = noise(torch.zeros(steps + 2, 1, 1, 1).double())
    x = last(sample(end_of_path(schedule), process, x_1, process.times(steps), noise))
    assert law(x) == pytest.approx((M, S), abs=1e-9)


def test_only_the_ends_of_paths_have_no_loss():
    e = build(PUPIL.replace(teacher_steps=32))
    exact, ends = gaussian(e.denoiser.schedule), end_of_path(e.denoiser.schedule)

    class Perfect(torch.nn.Module):
        null, schedule = e.denoiser.null, e.denoiser.schedule

        def forward(self, x_t, t, cond=None):
            return ends(x_t, t)

    e.teacher, e.denoiser = exact, Perfect()
    objective = Consistency(e)
    images = ((M + S * torch.randn(64, 1, 28, 28)) / 2 + 0.5).clamp(0, 1)  # not quite Gaussian, but on its paths
    inputs = objective.draw(images, torch.zeros(64).long(), Noise(0, torch.arange(64)))
    loss = lambda denoiser: objective.loss(denoiser, *inputs).item()
    assert loss(ends) < 1e-5 < 1e-3 < loss(exact)


def test_a_pupil_begins_as_its_teacher_and_is_resumed_to_the_bit(tmp_path):
    teacher = build(TEACHER)
    config = PUPIL.replace(teacher=str(save_weights(tmp_path / "teacher.pth", teacher)))
    begin = lambda: begin_from_teacher(build(config.replace(seed=1)), [])
    assert same(begin().network.state_dict(), teacher.network.state_dict())
    whole, broken = run(Trainer(begin(), digits()), 5), run(Trainer(begin(), digits()), 2)
    resumed = Trainer(begin(), digits())
    resumed.load_state(broken.state())
    assert same(run(resumed, 5).state(), whole.state())
    assert not same(begin().network.state_dict(), whole.experiment.network.state_dict())
    assert same(teacher.network.state_dict(), whole.experiment.teacher.network.state_dict())


def test_a_resumed_pupil_needs_the_teacher_that_it_began_with(tmp_path, monkeypatch):
    data = replace(digits(), classes=tuple("0123456789"))
    monkeypatch.setattr(laboratory, "load", lambda *_: data)
    path = save_weights(tmp_path / "teacher.pth", build(TEACHER))
    config, options = PUPIL.replace(teacher=str(path)), RunOptions(out=tmp_path, device="cpu")

    def train(until, resume=True):
        pupil = laboratory.Run(config, replace(options, resume=resume), "pupil", "pupil.pth")
        return [*pupil.steps(Plan(steps=until))][-1]

    assert train(1, resume=False) == 1 and train(2) == 2
    save_weights(path, build(TEACHER.replace(seed=1)))
    with pytest.raises(UserError, match=f"the weights of teacher {str(path)!r} are not those that this run began with"):
        train(3)
    state = files.load(tmp_path / "runs/pupil/state.pt")
    del state["teacher"]  # as of a run that was begun before it was kept
    files.save(tmp_path / "runs/pupil/state.pt", state)
    assert train(3) == 3


@pytest.mark.parametrize("changes", [{"hidden": (8, 16)}, {"target": "v"}, {"classes": 0}])
def test_a_pupil_that_cannot_begin_as_its_teacher_is_refused(tmp_path, changes):
    path = save_weights(tmp_path / "teacher.pth", build(TEACHER))
    with pytest.raises(UserError, match=f"has {next(iter(changes))} "):
        begin_from_teacher(build(PUPIL.replace(teacher=str(path), **changes)), [])
