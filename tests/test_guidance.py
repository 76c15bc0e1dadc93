"""Guidance: what it computes, what it costs, where it leads; and the labels that training hides for its sake."""

import itertools
import math

import pytest
import torch
from oracles import Counting, gaussian, noise
from test_training import Ranked, run, same
from torch import nn

from diffusion import files
from diffusion.api.checks import check_labels
from diffusion.api.generation import guided_denoiser, trajectory
from diffusion.data.batches import batches
from diffusion.data.datasets import Dataset
from diffusion.errors import UserError
from diffusion.experiment.build import build
from diffusion.experiment.config import Config
from diffusion.experiment.samplers import SamplingOptions
from diffusion.method.denoiser import TARGETS, Denoiser
from diffusion.method.guidance import Guided
from diffusion.method.process import Gaussian
from diffusion.method.sampler import heun, last, multistep, sample
from diffusion.method.schedule import Cosine, LinearBeta, Rectified
from diffusion.networks.unet import UNet
from diffusion.training.trainer import Trainer

SCHEDULES = {"linear": LinearBeta, "cosine": Cosine, "rectified": Rectified}
POSSIBLE = [(s, t) for s, t in itertools.product(SCHEDULES, TARGETS) if s == "linear" or t != "eps"]
SMALL = Config(schedule="rectified", target="velocity", network="unet", hidden=(8, 16), classes=10, precision="fp32")
X = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
HALF = torch.tensor(0.5, dtype=torch.float64)


class Labelled(nn.Module):
    """A network whose output depends on all of its inputs; label 3 is the null label."""

    def null(self, cond):
        return torch.full_like(cond, 3)

    def forward(self, x, t, cond=None):
        cond = self.null(torch.zeros(len(x))) if cond is None else cond
        weight = torch.tensor([0.3, -0.8, 0.5, 0.1])[cond.long()] + t.to(x)
        return weight.reshape(-1, 1, 1, 1) * x.tanh() + weight.reshape(-1, 1, 1, 1) ** 2


def denoiser(schedule="rectified", target="velocity"):
    return Denoiser(Labelled(), SCHEDULES[schedule](), target)


def null(count=6):
    return torch.full((count,), 3)


# --- What is computed, and what it costs ---


def test_scale_1_is_one_call_of_the_plain_conditional_denoiser():
    counting = Counting(denoiser())
    assert torch.equal(Guided(counting, 1.0)(X, HALF, LABELS), denoiser()(X, HALF, LABELS))
    assert counting.sizes == [6] and counting.calls[0][2] is LABELS


def test_scale_0_is_one_unconditional_call():
    counting = Counting(denoiser())
    assert torch.equal(Guided(counting, 0.0)(X, HALF, LABELS), denoiser()(X, HALF, None))
    assert counting.sizes == [6] and torch.equal(counting.calls[0][2], null())


@pytest.mark.parametrize("scale", [-1.0, 0.5, 2.0, 7.5])
@pytest.mark.parametrize("t", [HALF, torch.linspace(0.1, 1, 6)], ids=["one time", "a time each"])
def test_any_other_scale_is_one_call_of_a_doubled_batch(scale, t):
    counting = Counting(denoiser())
    guided = Guided(counting, scale)(X, t, LABELS)
    (x_t, times, cond), sizes = counting.calls[0], counting.sizes
    assert sizes == [12] and torch.equal(x_t, torch.cat([X, X])) and torch.equal(cond, torch.cat([null(), LABELS]))
    assert times.shape == ((12,) if t.dim() else ())
    free, bound = denoiser()(X, t, None), denoiser()(X, t, LABELS)
    torch.testing.assert_close(guided, free + scale * (bound - free), atol=1e-5, rtol=1e-5)


def test_without_a_condition_there_is_nothing_to_guide():
    counting = Counting(denoiser())
    assert torch.equal(Guided(counting, 5.0)(X, HALF), denoiser()(X, HALF, None))
    assert counting.sizes == [6] and counting.calls[0][2] is None


def test_x_0_is_linear_in_the_scale():
    at = lambda scale: Guided(denoiser(), scale)(X, HALF, LABELS)
    torch.testing.assert_close(at(3.0) - at(2.0), at(1.0) - at(0.0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(at(-2.0), at(0.0) - 2 * (at(1.0) - at(0.0)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("schedule, target", POSSIBLE)
@pytest.mark.parametrize("w", [0.5, 2.0])
def test_in_terms_of_noise_and_of_every_target_it_is_the_papers(schedule, target, w):
    """Ho & Salimans (2022), equation 6: (1 + w) eps(x, c) - w eps(x); x_0, v and the velocity move the same way."""
    ours, t = denoiser(schedule, target), torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = ours.schedule(t)
    p, q = TARGETS[target](alpha, sigma)
    x_0 = Guided(ours, 1 + w)(X, t, LABELS).double()
    eps = (X - alpha * x_0) / sigma
    network = lambda cond: ours.network(X, t.float().expand(6), cond).double()
    paper = (1 + w) * network(LABELS) - w * network(None)
    torch.testing.assert_close(p * x_0 + q * eps, paper, atol=2e-4, rtol=1e-4)
    eps_of = lambda cond: (X - alpha * ours(X, t, cond).double()) / sigma
    torch.testing.assert_close(eps, (1 + w) * eps_of(LABELS) - w * eps_of(None), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("t, calls", [(0.19, 6), (0.2, 12), (0.5, 12), (0.8, 12), (0.81, 6)])
def test_outside_the_interval_the_scale_is_1(t, calls):
    counting, t = Counting(denoiser()), torch.tensor(t, dtype=torch.float64)
    x_0 = Guided(counting, 4.0, (0.2, 0.8))(X, t, LABELS)
    assert counting.sizes == [calls]  # nor does it cost anything
    expected = Guided(denoiser(), 4.0)(X, t, LABELS) if calls == 12 else denoiser()(X, t, LABELS)
    assert torch.equal(x_0, expected)


@pytest.mark.parametrize("scale", [4.0, 0.0])
def test_every_sample_has_its_own_place_in_the_interval(scale):
    counting, t = Counting(denoiser()), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    x_0 = Guided(counting, scale, (0.25, 0.75))(X, t, LABELS)
    assert counting.sizes == [12]
    inside = torch.tensor([False, True, True, True, False, False])
    plain, guided = denoiser()(X, t, LABELS), Guided(denoiser(), scale)(X, t, LABELS)
    torch.testing.assert_close(x_0, torch.where(inside[:, None, None, None], guided, plain), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("t", [HALF, torch.full((6,), 0.5, dtype=torch.float64)], ids=["one time", "a time each"])
def test_images_keep_their_precision(dtype, t):
    assert Guided(denoiser(), 3.0)(X.to(dtype), t, LABELS).dtype == dtype


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf])
def test_a_scale_that_is_no_number_is_refused(scale):
    with pytest.raises(AssertionError, match=f"a guidance scale is a finite number, not {scale}"):
        Guided(denoiser(), scale)


@pytest.mark.parametrize("interval", [(0.5, 0.5), (0.8, 0.2), (-0.1, 1.0), (0.0, 1.1), (math.nan, 1.0), (0, math.nan)])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(AssertionError, match="a guidance interval is two rising times"):
        Guided(denoiser(), 2.0, interval)


# --- Where it leads ---


class TwoClasses:
    """The exact denoiser of two equally frequent Gaussians N(∓m, s^2): of one, or unconditional (label 2) of both."""

    def __init__(self, schedule, m=0.5, s=0.25):
        self.schedule, self.m, self.s = schedule, m, s
        self.one = [gaussian(schedule, -m, s), gaussian(schedule, m, s)]

    def null(self, cond):
        return torch.full_like(cond, 2)

    def __call__(self, x, t, cond):
        alpha, sigma = (each.to(x) for each in self.schedule(t))
        log_odds = 2 * alpha * self.m * x / (alpha**2 * self.s**2 + sigma**2)  # of the second against the first
        second = log_odds.sigmoid()
        each = [self.one[0](x, t), self.one[1](x, t), (1 - second) * self.one[0](x, t) + second * self.one[1](x, t)]
        return torch.stack(each)[cond, torch.arange(len(x))]


def drawn(scale, label, loop=sample, schedule=None, interval=(0.0, 1.0), eta=0.0, n=2000):
    process = Gaussian(schedule or Rectified(), eta)
    draw = noise(0, n)
    x, cond = process.prior(torch.empty(n, 1, 1, 1, dtype=torch.float64), draw), torch.full((n,), label)
    guided = Guided(TwoClasses(process.schedule), scale, interval)
    return last(loop(guided, process, x, process.times(40), draw, cond=cond)).flatten()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_scale_1_draws_the_class_and_scale_0_draws_them_all(schedule):
    schedule = SCHEDULES[schedule]()
    for label, mean in ((0, -0.5), (1, 0.5)):
        x = drawn(1.0, label, multistep, schedule)
        assert x.mean().item() == pytest.approx(mean, abs=0.03) and x.std().item() == pytest.approx(0.25, abs=0.03)
        both = drawn(0.0, label, multistep, schedule)
        assert both.mean().item() == pytest.approx(0, abs=0.05)
        assert both.std().item() == pytest.approx(math.hypot(0.5, 0.25), abs=0.03)


@pytest.mark.parametrize("loop, eta", [(sample, 0.0), (heun, 0.0), (multistep, 0.0), (sample, 1.0), (multistep, 1.0)])
def test_guidance_moves_every_sample_away_from_the_other_class(loop, eta):
    """log p(label | x) rises away from the other class, everywhere: so every path, not only the mean, is moved."""
    for label, away in ((0, -1), (1, 1)):
        paths = [away * drawn(scale, label, loop, eta=eta) for scale in (0.0, 0.5, 1.0, 2.0, 4.0)]
        for less, more in zip(paths, paths[1:]):
            assert (more > less).all() and (more - less).mean() > 0.02
    mirrored = -drawn(4.0, 0, loop, eta=eta).mean(), drawn(4.0, 1, loop, eta=eta).mean()
    torch.testing.assert_close(*mirrored, atol=0.02, rtol=0)


def test_guidance_moves_only_along_what_tells_the_classes_apart():
    """Two pixels, of which the second has nothing to do with the label: guidance leaves it to the bit as it was."""

    class First(TwoClasses):
        def __call__(self, x, t, cond):
            one = super().__call__(x[..., :1], t, cond)
            return torch.cat([one, gaussian(self.schedule, 0.1, 0.3)(x[..., 1:], t)], dim=-1)

    process, draw = Gaussian(Rectified(), eta=0), noise(0, 50)
    x, cond = draw(torch.empty(50, 1, 1, 2, dtype=torch.float64)), torch.ones(50).long()
    end = lambda scale: last(sample(Guided(First(Rectified()), scale), process, x, process.times(10), cond=cond))
    plain, guided = end(1.0), end(3.0)
    torch.testing.assert_close(plain[..., 1], guided[..., 1], atol=1e-12, rtol=0)
    assert (guided[..., 0] > plain[..., 0]).all()


def test_guided_for_a_part_of_the_way_the_samples_end_between():
    plain, part, whole = drawn(1.0, 1), drawn(4.0, 1, interval=(0.3, 0.7)), drawn(4.0, 1)
    assert (plain < part).all() and (part < whole).all()
    assert torch.equal(drawn(4.0, 1, interval=(0.0, 1.0)), whole)


# --- With real networks ---


def stirred(config):
    """An experiment whose network is random in every weight: an untrained one gives 0 for every input."""
    experiment, draw = build(config), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in experiment.denoiser.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=draw))
    return experiment


def test_the_unet_without_a_condition_is_the_unet_with_the_null_label():
    network, x, t = stirred(SMALL).denoiser.network, noise(0, 4)(torch.empty(4, 1, 28, 28)), torch.linspace(0.1, 1, 4)
    cond = torch.tensor([0, 3, 5, 9])
    with torch.no_grad():
        assert torch.equal(network(x, t), network(x, t, network.null(cond)))
        assert torch.equal(network.null(cond), torch.full((4,), 10))
        outputs = [network(x, t, torch.full((4,), label)) for label in range(11)]
    distances = torch.stack([(a - b).abs().amax((1, 2, 3)).min() for i, a in enumerate(outputs) for b in outputs[:i]])
    assert (distances > 1e-4).all()  # every label says something else, the null label too
    assert UNet((1, 28, 28), (8, 16)).state_dict().keys() == network.state_dict().keys() - {"label_embed.weight"}


@pytest.mark.parametrize("process", ["gaussian", "averaging"])
def test_cold_and_hot_networks_are_guided_alike(process):
    changes = {"process": process, "target": "x_0", "timesteps": 7} if process == "averaging" else {}
    e = stirred(SMALL.replace(**changes))
    x, t, cond = noise(0, 3)(torch.empty(3, 1, 28, 28)), torch.tensor(3 / 7), torch.tensor([1, 5, 9])
    with torch.no_grad():
        free, bound = e.denoiser(x, t), e.denoiser(x, t, cond)
        guided = Guided(e.denoiser, 2.5)(x, t, cond)
    assert (free - bound).abs().max() > 1e-3
    torch.testing.assert_close(guided, free + 2.5 * (bound - free), atol=1e-4, rtol=1e-4)
    originals = labelled(3, 28).images
    every = (SamplingOptions(guidance_scale=scale, steps=3) for scale in (1.0, 0.0, 2.5))
    ends = [last(trajectory(e, torch.arange(3), options, originals=originals, labels=cond)) for options in every]
    assert all(x.isfinite().all() and x.min() >= 0 and x.max() <= 1 for x in ends)
    assert not torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_what_is_guided_stays_in_the_range_of_images_if_wanted():
    e, x, cond = stirred(SMALL), 5 * noise(0, 2)(torch.empty(2, 1, 28, 28)), torch.tensor([1, 2])
    with torch.no_grad():
        free, kept = (
            guided_denoiser(e, SamplingOptions(guidance_scale=8.0, clip=clip))(x, HALF, cond) for clip in (False, True)
        )
    assert free.abs().max() > 0.5 and torch.equal(kept, free.clamp(-0.5, 0.5))


def test_labels_come_in_turn_or_as_they_are_given():
    e, index = build(SMALL), torch.arange(23)
    assert torch.equal(check_labels(e, index), index % 10)
    assert torch.equal(check_labels(e, index[7:9]), torch.tensor([7, 8]))  # whatever else is in the batch
    assert torch.equal(check_labels(e, index[:3], 7), torch.tensor([7, 7, 7]))
    assert check_labels(build(SMALL.replace(classes=0)), index) is None


@pytest.mark.parametrize("labels", [10, -1, 1.5, torch.tensor([0, 10]), torch.tensor([0.0, 1.0])])
def test_labels_that_the_network_does_not_know_are_refused(labels):
    with pytest.raises(UserError, match="^a label is an integer from 0 to 9, not"):
        check_labels(build(SMALL), torch.arange(2), labels)
    with pytest.raises(UserError, match="^these weights know no labels"):
        check_labels(build(SMALL.replace(classes=0)), torch.arange(2), labels)


def test_labels_for_a_network_without_them_are_refused_with_a_sentence():
    with pytest.raises(UserError, match="cannot be class-conditional: use unet, or classes 0"):
        build(Config(classes=10))


# --- Training ---


class Recorder(nn.Module):
    """A network that records its conditions and times."""

    def __init__(self):
        super().__init__()
        self.weight, self.conds, self.times = nn.Parameter(torch.zeros(())), [], []

    def null(self, cond):
        return torch.full_like(cond, 10)

    def forward(self, x, t, cond=None):
        self.conds.append(cond)
        self.times.append(t)
        return self.weight * x


def labelled(n=1000, size=4):
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, size, size), generator=draw, dtype=torch.uint8)
    return Dataset("MNIST", images, torch.randint(0, 10, (n,), generator=draw), tuple("0123456789"))


def recorded(steps=40, rank=0, world=1, **changes):
    """What a network gets in some steps of training: labels (steps, B) and times (steps, B)."""
    e = build(SMALL.replace(batch_size=250, **changes))
    e.denoiser = Denoiser(Recorder(), Rectified(), "velocity")
    trainer = Trainer(e, labelled())
    trainer.accelerator = Ranked(trainer.accelerator, rank, world)
    recorder = run(trainer, steps).trained.network
    return torch.stack(recorder.conds), torch.stack(recorder.times)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_training_hides_the_given_share_of_labels_and_leaves_the_others(share):
    labels, times = recorded(drop_prob=share)
    true = torch.stack([batch.labels for batch, _ in zip(batches(labelled(), 250, 0), range(40))])
    hidden = labels == 10
    assert torch.equal(labels[~hidden], true[~hidden])
    deviation = math.sqrt(share * (1 - share) / labels.numel())  # 10,000 labels
    assert hidden.float().mean().item() == pytest.approx(share, abs=4 * deviation + 1e-12)
    if 0 < share < 1:  # whatever the label, the time and the place in the batch
        z = lambda part: (hidden[part].float().mean().item() - share) / math.sqrt(share * (1 - share) / part.sum())
        parts = [true == label for label in range(10)]
        parts += [(times > low) & (times <= low + 0.25) for low in (0, 0.25, 0.5, 0.75)]
        parts += [(torch.arange(250) // 125 == half).expand_as(labels) for half in (0, 1)]
        assert max(abs(z(part)) for part in parts) < 4
        each = hidden.float().mean(0)
        assert each.std().item() == pytest.approx(math.sqrt(share * (1 - share) / 40), rel=0.2)  # fresh every step


def test_what_is_hidden_is_decided_by_the_seed():
    a, b, c = (recorded(4, seed=seed, drop_prob=0.5)[0] for seed in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert not torch.equal(a[0] == 10, a[1] == 10)


def test_two_processes_hide_what_one_hides():
    (whole, times), halves = recorded(6, drop_prob=0.5), [recorded(6, rank, 2, drop_prob=0.5) for rank in (0, 1)]
    assert torch.equal(torch.cat([labels for labels, _ in halves], dim=1), whole)
    assert torch.equal(torch.cat([t for _, t in halves], dim=1), times)


def test_a_network_without_labels_gets_none():
    conds = []
    trainer = Trainer(build(SMALL.replace(classes=0, batch_size=20)), labelled(40, 28))
    trainer.trained.network.register_forward_pre_hook(lambda _, args: conds.append(args[2]))
    run(trainer, 2)
    assert conds == [None, None]


def trainer(process, data=None):
    changes = {"process": process, "target": "x_0", "timesteps": 7} if process == "averaging" else {}
    config = SMALL.replace(batch_size=8, drop_prob=0.4, lr=1e-2, warmup=2, decay=0.5, **changes)
    ours = Trainer(build(config), data or labelled(24, 28))
    ours.end = 7
    return ours


@pytest.mark.parametrize("process", ["gaussian", "averaging"])
def test_a_training_with_labels_resumes_to_the_bit(tmp_path, process):
    whole, broken = run(trainer(process), 7), run(trainer(process), 4)  # more than two epochs of three steps
    path = files.save(tmp_path / "state.pt", broken.state())
    resumed = trainer(process)
    resumed.end = None
    resumed.load_state(files.load(path))
    assert same(run(resumed, 7).state(), whole.state())
    assert not same(broken.state(), whole.state())
    embedding = whole.trained.network.label_embed.weight
    assert not torch.equal(embedding, trainer(process).trained.network.label_embed.weight)


def test_training_learns_what_the_labels_mean_and_to_do_without():
    """Black images are 0, white ones 1: with the label the network knows x_0 from pure noise, without it the mean."""
    images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    images[::2] = 255
    data = Dataset("MNIST", images, torch.arange(1, 65) % 2, ("black", "white"))
    config = SMALL.replace(shape=(1, 8, 8), classes=2, target="x_0", batch_size=32, lr=1e-2, drop_prob=0.3, beta2=0.9)
    averaged = run(Trainer(build(config), data), 80).ema
    x_1 = noise(0, 64)(torch.empty(64, 1, 8, 8))
    estimates = [averaged(x_1, torch.ones(()), torch.full((64,), label)).mean().item() for label in (0, 1, 2)]
    assert estimates == pytest.approx([-0.5, 0.5, 0.0], abs=0.3)
