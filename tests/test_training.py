"""Training: a resume is bit-exact, and nothing that is not finite reaches a weight."""

import copy

import pytest
import torch
from accelerate import Accelerator

from diffusion import files
from diffusion.api.model import Model
from diffusion.data.datasets import Dataset
from diffusion.experiment.build import build
from diffusion.experiment.config import Config
from diffusion.experiment.presets import GUIDED
from diffusion.training.trainer import Diverged, Trainer

CONFIG = Config(hidden=(4, 4), timesteps=10, batch_size=16, lr=1e-3)


def digits(n=100):
    """Random images: training must be exact on any data."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, 28, 28), generator=g, dtype=torch.uint8)
    return Dataset("MNIST", images, torch.zeros(n, dtype=torch.long), ("0",))


def trainer(config=CONFIG, data=None):
    return Trainer(build(config), data or digits(), Accelerator(cpu=True))


def run(t, until):
    for _ in t.train(until):
        pass
    return t


def same(a, b):
    """Whether two states are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_is_the_unbroken_run_to_the_bit(tmp_path, monkeypatch, precision):
    monkeypatch.setattr("diffusion.method.denoiser.computes_bf16", lambda device: True)  # if only by emulation
    config = CONFIG.replace(precision=precision)
    whole = run(trainer(config), 15)  # two and a half epochs of six steps
    broken = run(trainer(config), 7)
    path = files.save(tmp_path / "state.pt", broken.state())
    resumed = trainer(config)
    resumed.load_state(files.load(path))
    assert same(run(resumed, 15).state(), whole.state())
    assert not same(broken.state(), whole.state())


def test_leaving_the_generator_and_coming_back_changes_nothing():
    a, b = run(trainer(), 9), trainer()
    for until in (1, 4, 9):
        run(b, until)
    assert same(a.state(), b.state())


def test_the_seed_decides():
    assert same(run(trainer(), 3).state(), run(trainer(), 3).state())
    assert not same(run(trainer(), 3).state(), run(trainer(CONFIG.replace(seed=1)), 3).state())


def test_a_model_that_is_trained_draws_with_the_averaged_weights_at_any_time():
    model = Model(build(CONFIG))
    before, start = model.sample(2, steps=2), copy.deepcopy(model.experiment.trained.state_dict())
    t = Trainer(model, digits())
    assert t.ema is model.experiment.trained and t.trained is not t.ema
    assert same(t.trained.state_dict(), start) and t.accelerator.device.type == "cpu"
    assert not same(run(t, 3).state()["denoiser"], t.ema.state_dict())
    assert not torch.equal(model.sample(2, steps=2), before)


def test_training_fits_the_prior_once(monkeypatch):
    config = CONFIG.replace(process="averaging", target="x_0", timesteps=7)
    model = Model(build(config))
    assert not model.experiment.process.has_prior
    t = run(Trainer(model, digits()), 1)
    assert model.experiment.process.has_prior and model.sample(2, steps=2).isfinite().all()
    monkeypatch.setattr(t.experiment.process, "fit", None)
    run(t, 2)


def test_training_learns():
    """Real learning, not only bookkeeping: on constant images the x_0 loss falls well below its start."""
    data = Dataset("MNIST", torch.full((64, 1, 28, 28), 200, dtype=torch.uint8), torch.zeros(64).long(), ("0",))
    t = run(trainer(CONFIG.replace(target="x_0", lr=1e-2), data), 60)
    assert sum(t.losses[-5:]) < 0.2 * sum(t.losses[:5])


def test_the_average_follows_the_weights_with_a_warm_up():
    t = trainer()
    expected = [p.detach().clone() for p in t.trained.parameters()]
    for n in range(5):
        run(t, n + 1)
        keep = min(0.999, (n + 1) / (n + 10))
        expected = [keep * e + (1 - keep) * p.detach() for e, p in zip(expected, t.trained.parameters())]
    for a, b in zip(t.ema.parameters(), expected):
        torch.testing.assert_close(a, b)
        assert not a.requires_grad  # or every step's graph would be kept


@pytest.mark.parametrize("poison", ["weight", "gradient"])
def test_what_is_not_finite_stops_before_the_optimizer_step(poison):
    t = run(trainer(), 3)
    weights, moments = copy.deepcopy(t.trained.state_dict()), copy.deepcopy(t.optimizer.state_dict())
    if poison == "weight":  # a NaN in the forward pass
        with torch.no_grad():
            t.codec.low = float("nan")
    else:  # a finite loss with an infinite gradient
        next(t.trained.parameters()).register_hook(lambda g: g * float("inf"))
    with pytest.raises(Diverged, match=r"step 4: the loss is .* gradient norm .* lr 0.001"):
        run(t, 10)
    assert same(weights, t.trained.state_dict()) and same(moments, t.optimizer.state_dict())
    assert len(t.losses) == 3
    with pytest.raises(Diverged):
        t.state()  # nor does it become a checkpoint


def test_the_guard_holds_until_the_losses_are_read(monkeypatch):
    """On a GPU the loss is read every 20 steps: the steps after the bad one must not be taken either."""
    t = run(trainer(), 3)
    weights = copy.deepcopy(t.trained.state_dict())
    low = t.codec.low
    monkeypatch.setattr(t, "sync_losses", lambda: None)
    for n in range(4, 8):
        t.codec.low = float("nan") if n == 5 else low
        if n == 5:
            weights = copy.deepcopy(t.trained.state_dict())
        run(t, n)
    assert same(weights, t.trained.state_dict())
    monkeypatch.undo()
    with pytest.raises(Diverged, match="step 5"):
        t.sync_losses()


def test_the_gradients_of_two_half_batches_average_to_that_of_the_whole():
    """The theorem of test_processes.py in one process: parts 0 and 1 of the batch, with their own noise and times."""

    def gradient(rank, world):
        t = trainer()
        t.accelerator = Ranked(t.accelerator, rank, world)
        t.optimizer.step = lambda: None
        run(t, 1)
        return [p.grad for p in t.trained.parameters()]

    whole, halves = gradient(0, 1), [gradient(rank, 2) for rank in (0, 1)]
    for g, a, b in zip(whole, *halves):
        torch.testing.assert_close((a + b) / 2, g, atol=1e-6, rtol=1e-4)


class Ranked:
    """An accelerator that says it is one of several processes."""

    def __init__(self, accelerator, rank, world):
        self.accelerator, self.process_index, self.num_processes = accelerator, rank, world

    def __getattr__(self, name):
        return getattr(self.accelerator, name)


def test_the_guided_preset_for_colour_pictures_trains_on_pictures_of_their_shape():
    """On ten plain colours, each its own label, even a tiny network soon knows what to expect."""
    colours = torch.rand(10, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(10).repeat(20)
    images = (255 * colours[labels]).byte().expand(-1, 3, 32, 32).contiguous()
    config = GUIDED["unet_cifar"].replace(hidden=(8, 16), batch_size=20, lr=1e-2, warmup=1)
    t = run(trainer(config, Dataset("CIFAR10", images, labels, tuple("0123456789"))), 40)
    assert sum(t.losses[-5:]) < 0.75 * sum(t.losses[:5])
