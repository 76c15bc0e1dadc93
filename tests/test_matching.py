"""Distribution matching distillation on data of which every score is known, and as an objective of the trainer."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from oracles import M, S, gaussian
from test_training import digits, run, same

from diffusion import files
from diffusion.errors import UserError
from diffusion.experiment.build import build
from diffusion.experiment.presets import PRESETS
from diffusion.experiment.weights import begin_from_teacher, save_weights
from diffusion.method.denoiser import Denoiser
from diffusion.method.matching import call_time, descent, surrogate
from diffusion.method.noise import Noise
from diffusion.method.process import Gaussian
from diffusion.method.schedule import Cosine, Rectified
from diffusion.training.objectives import Matching, objective_of
from diffusion.training.trainer import Trainer

TEACHER = PRESETS["unet"].replace(hidden=(8, 8), batch_size=16)
PUPIL = PRESETS["unet_few"].replace(hidden=(8, 8), batch_size=16, distillation="matching", teacher_scale=1.5)
COUNT = 20_000


def score_of(schedule, x_t, t, m, s):
    """The score of data N(m, s^2) at time t, by autograd of its log-density."""
    x_t = x_t.clone().requires_grad_(True)
    alpha, sigma = schedule(t)
    density = torch.distributions.Normal(alpha * m, (alpha**2 * s**2 + sigma**2).sqrt())
    return torch.autograd.grad(density.log_prob(x_t).sum(), x_t)[0]


@pytest.mark.parametrize("schedule", [Rectified(), Cosine()])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_descent_is_the_difference_of_the_scores(schedule, t):
    x_0, t = torch.randn(50, 1, 2, 2).double(), torch.tensor(t).double()
    alpha, sigma = schedule(t)
    x_t = Gaussian(schedule).degrade(x_0, t, torch.randn_like(x_0))
    real, fake = gaussian(schedule)(x_t, t), gaussian(schedule, 0.1, 0.7)(x_t, t)
    difference = score_of(schedule, x_t, t, 0.1, 0.7) - score_of(schedule, x_t, t, M, S)
    factor = (x_0 - real).abs().mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(descent(x_0, real, fake) * factor, difference * sigma**2 / alpha)


def test_images_of_the_teachers_own_distribution_stay_where_they_are():
    x_0, x_t, t = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2), torch.tensor(0.5)
    same_score = gaussian(Rectified())(x_t, t)
    assert not descent(x_0, same_score, same_score).any()


def test_the_surrogate_has_the_gradient_that_it_is_given():
    x_0, gradient = torch.randn(3, 1, 2, 2, requires_grad=True), torch.randn(3, 1, 2, 2)
    (found,) = torch.autograd.grad(surrogate(x_0, gradient), x_0)
    torch.testing.assert_close(found * x_0.numel(), gradient)


def test_times_are_those_at_which_the_sampler_calls():
    noise = Noise(0, torch.arange(COUNT))
    t, process = call_time(noise.uniform(), noise.uniform(), 4), Gaussian(Rectified())
    called = torch.cat([process.times(steps)[:-1] for steps in range(1, 5)]).float()
    assert set(t.unique().tolist()) == set(called.tolist())
    share = (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4
    assert (t == 1).float().mean() == pytest.approx(share, abs=4 * (share * (1 - share) / COUNT) ** 0.5)


class Gauss(torch.nn.Module):
    """Of N(mean, std^2), which can be trained: the perfect denoiser or, as a student, where flows end."""

    def __init__(self, mean: float, std: float, student: bool = False):
        super().__init__()
        self.mean, self.log_std = (torch.nn.Parameter(each) for each in (torch.tensor(mean), torch.tensor(std).log()))
        self.student = student

    def forward(self, x_t, t, cond=None):
        if not self.student:
            return gaussian(Rectified(), self.mean, self.log_std.exp())(x_t, t)
        alpha, sigma = (each.reshape(-1, 1, 1, 1).to(x_t) for each in Rectified()(t))
        return self.mean + self.log_std.exp() * (x_t - alpha * M) / (alpha**2 * S**2 + sigma**2).sqrt()


def learnt(network: Gauss) -> tuple[float, float]:
    return network.mean.item(), network.log_std.exp().item()


def test_a_student_and_its_critic_end_at_the_teachers_distribution():
    e = build(PUPIL.replace(teacher_scale=1.0))
    e.codec, e.teacher = SimpleNamespace(draw=lambda data, noise: data), Denoiser(Gauss(M, S).requires_grad_(False))
    objective, student = Matching(e), Denoiser(Gauss(-0.2, 0.8, student=True))
    critic = {"params": list(objective.critic.parameters()), "lr": 0.01 * e.config.critic_pace}
    optimizer = torch.optim.Adam([{"params": list(student.parameters())}, critic], lr=0.01, betas=(0.0, 0.99))
    for step in range(250):
        noise = Noise(0, step * 64 + torch.arange(64))
        data = M + S * noise(torch.empty(64, 1, 4, 4))
        optimizer.zero_grad()
        objective.loss(student, *objective.draw(data, None, noise)).backward()
        optimizer.step()
        if step == 20:
            assert learnt(objective.critic.network)[0] < 0.1  # it follows the draws, not the teacher
    assert learnt(student.network) == pytest.approx((M, S), abs=0.02)
    assert learnt(objective.critic.network) == pytest.approx((M, S), abs=0.02)
    assert learnt(e.teacher.network) == pytest.approx((M, S), abs=1e-6)


def test_neither_loss_reaches_the_weights_of_the_other():
    e = build(PUPIL)
    e.teacher = copy.deepcopy(e.denoiser).requires_grad_(False)
    objective, noise = Matching(e), Noise(0, torch.arange(4))
    student = copy.deepcopy(e.denoiser).requires_grad_(True)
    inputs = objective.draw(torch.rand(4, 1, 28, 28), torch.arange(4), noise)
    grads = lambda module: [each.grad.clone() for each in module.parameters()]
    objective.loss(student, *inputs).backward()
    both = grads(student), grads(objective.critic)
    for frozen, moved, known in ((objective.critic, student, both[0]), (student, objective.critic, both[1])):
        frozen.requires_grad_(False)
        moved.zero_grad()
        objective.loss(student, *inputs).backward()
        assert all(map(torch.equal, grads(moved), known))
        frozen.requires_grad_(True)


@pytest.mark.parametrize("distillation", ["consistency", "matching"])
def test_no_step_waits_for_the_device_to_tell_a_number(distillation, monkeypatch):
    """A device without numbers has none to tell: what runs on it can be recorded as a CUDA graph."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # not known to this device
    e = build(PUPIL.replace(distillation=distillation))
    e.teacher = copy.deepcopy(e.denoiser)
    objective, student = objective_of(e.to("meta")), copy.deepcopy(e.denoiser)
    data, labels = torch.empty(4, 1, 28, 28, device="meta"), torch.empty(4, dtype=torch.long, device="meta")
    inputs = objective.draw(data, labels, Noise(0, torch.arange(4, device="meta")))
    assert objective.loss(student, *inputs).shape == ()
    with pytest.raises(RuntimeError):
        inputs[0].sum().item()


def begun(folder, **changes):
    """A pupil that begins with weights of its own, and its teacher."""
    teacher, start = (save_weights(folder / f"{seed}.pth", build(TEACHER.replace(seed=seed))) for seed in (0, 1))
    config = PUPIL.replace(teacher=str(teacher), start=str(start), **changes)
    return begin_from_teacher(build(config.replace(seed=2)), [])


def test_a_pupil_begins_as_told_and_is_resumed_to_the_bit(tmp_path):
    begin = lambda: begun(tmp_path)
    assert same(begin().network.state_dict(), build(TEACHER.replace(seed=1)).network.state_dict())
    whole, broken = run(Trainer(begin(), digits()), 5), run(Trainer(begin(), digits()), 2)
    path = files.save(tmp_path / "state.pt", broken.state())
    resumed = Trainer(begin(), digits())
    resumed.load_state(files.load(path))
    assert same(run(resumed, 5).state(), whole.state())
    taught = whole.experiment.teacher.state_dict()
    assert same(taught, begin().teacher.state_dict()) and not same(taught, whole.state()["critic"])
    assert not same(begin().network.state_dict(), whole.experiment.network.state_dict())


def test_only_the_student_is_shipped(tmp_path):
    trained = run(Trainer(begun(tmp_path), digits()), 2)
    path = save_weights(tmp_path / "pupil.pth", trained.experiment)
    assert files.load(path)["network"].keys() == trained.experiment.network.state_dict().keys()


@pytest.mark.parametrize("changes", [{"hidden": (8, 16)}, {"target": "v"}, {"classes": 0}])
def test_a_start_that_is_another_network_is_refused(tmp_path, changes):
    teacher = save_weights(tmp_path / "teacher.pth", build(TEACHER.replace(**changes)))
    start = save_weights(tmp_path / "start.pth", build(TEACHER))
    config = PUPIL.replace(teacher=str(teacher), start=str(start), **changes)
    with pytest.raises(UserError, match=f"start .* has {next(iter(changes))} "):
        begin_from_teacher(build(config), [])


@pytest.mark.parametrize("changes", [{"start": "unet_few"}, {"distillation": "matching"}])
def test_without_a_teacher_nothing_is_distilled(changes):
    with pytest.raises(UserError, match="teacher"):
        begin_from_teacher(build(TEACHER.replace(**changes)), [])


def test_an_unknown_distillation_is_refused():
    with pytest.raises(UserError, match="'distillation' cannot be 'matchin'.*'consistency' or 'matching'"):
        PUPIL.replace(distillation="matchin")
