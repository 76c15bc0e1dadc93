"""Averaging against the naive loop over images, channels and lines."""

import itertools

import pytest
import torch

from diffusion.method.averaging import ORDERS, Averaging, line_order
from diffusion.method.process import Gaussian
from diffusion.method.sampler import last, sample
from diffusion.method.schedule import LinearBeta


def naive(x_0, t, axis, order):
    """FACTS §2, literally: one image, one group, one channel at a time; a group becomes its joint mean."""
    x = x_0.clone()
    for i in range(len(x)):
        for g in range(round(float(t[i]) * len(order))):
            for c in range(x.shape[1]):
                lines = [x_0[i, c, n] if axis == "row" else x_0[i, c, :, n] for n in order[g].tolist()]
                mean = sum(float(line.sum()) for line in lines) / sum(len(line) for line in lines)
                for n in order[g].tolist():
                    if axis == "row":
                        x[i, c, n] = mean
                    else:
                        x[i, c, :, n] = mean
    return x


@pytest.mark.parametrize("axis, groups, order", list(itertools.product(["row", "col"], [28, 7, 14], ORDERS)))
def test_degrading_is_the_naive_loop_for_every_axis_grouping_order_and_time(axis, groups, order):
    order = line_order(order, 28, seed=groups).reshape(groups, -1)
    x_0 = torch.rand(groups + 1, 1, 28, 28)
    t = torch.arange(groups + 1) / groups  # every time, each on an image of its own
    torch.testing.assert_close(Averaging(axis, order).degrade(x_0, t), naive(x_0, t, axis, order))


@pytest.mark.parametrize(
    "axis, shape, groups", [("row", (3, 12, 20), 4), ("col", (3, 12, 20), 10), ("col", (2, 5, 6), 6)]
)
def test_any_size_and_any_number_of_channels(axis, shape, groups):
    lines = shape[1] if axis == "row" else shape[2]
    order = line_order("random", lines).reshape(groups, -1)
    x_0, t = torch.rand(6, *shape), torch.randint(0, groups + 1, (6,)) / groups
    torch.testing.assert_close(Averaging(axis, order).degrade(x_0, t), naive(x_0, t, axis, order))


@pytest.mark.parametrize("axis", ["row", "col"])
def test_nothing_is_degraded_at_0_and_everything_at_1(axis):
    process, x_0 = Averaging(axis, line_order("random", 28).reshape(7, 4)), torch.rand(3, 1, 28, 28)
    assert torch.equal(process.degrade(x_0, torch.zeros(3)), x_0)
    assert torch.equal(process.degrade(x_0, torch.tensor(0.0)), x_0)
    x_1 = process.degrade(x_0, torch.ones(3))
    assert torch.equal(x_1, process.means(x_0).expand_as(x_0))
    assert len(x_1[0].unique()) == 7
    torch.testing.assert_close(x_1.mean((1, 2, 3)), x_0.mean((1, 2, 3)))  # the grey value of an image stays


def test_degrading_twice_changes_nothing():
    process, x_0 = Averaging("row", line_order("random", 28).reshape(7, 4)), torch.rand(8, 1, 28, 28)
    for t in torch.arange(8) / 7:
        x_t = process.degrade(x_0, t)
        torch.testing.assert_close(process.degrade(x_t, t), x_t)


@pytest.mark.parametrize("axis", ["row", "col"])
@pytest.mark.parametrize("eta, pinned", [(0.0, False), (1.0, False), (1.0, True)])
@pytest.mark.parametrize("steps", [1, 3, 28])
def test_a_perfect_restorer_returns_x_0(axis, eta, pinned, steps):
    process = Averaging(axis, line_order("random", 28).reshape(28, 1), eta=eta, pinned=pinned)
    x_0 = torch.rand(2, 1, 28, 28)
    x = last(sample(lambda x, t, cond: x_0, process, process.degrade(x_0, torch.ones(2)), process.times(steps)))
    torch.testing.assert_close(x, x_0, atol=1e-6, rtol=0)


def test_algorithm_1_trusts_its_last_estimate_and_algorithm_2_keeps_what_each_step_revealed():
    order = line_order("random", 28).reshape(28, 1)
    x_0, error = torch.rand(2, 1, 28, 28), 0.3 * torch.randn(2, 1, 28, 28)

    def restored(eta):
        process = Averaging("row", order, eta=eta)
        biased = lambda x, t, cond: x_0 + error * (t > 1 / 28)  # right only at the very last step
        return last(sample(biased, process, process.degrade(x_0, torch.ones(2)), process.times(28)))

    wrong_by = [(restored(eta) - x_0).abs().mean().item() for eta in (0.0, 1.0)]
    assert wrong_by[1] < 1e-6  # all but the last, right, estimate is forgotten
    assert 0.01 < wrong_by[0] < error.abs().mean()  # each line is as wrong as the estimate that revealed it


def test_noise_is_of_the_stated_size_in_training_and_fresh_at_each_step():
    process = Averaging("col", line_order("inside-out", 28).reshape(7, 4), sigma=0.15, eta=1.0)
    x_0 = torch.rand(500, 1, 28, 28)
    residual = process.degrade(x_0, torch.tensor(0.5), torch.randn_like(x_0)) - process.blurred(x_0, torch.tensor(0.5))
    assert residual.std().item() == pytest.approx(0.15, rel=0.01)
    t, s = torch.tensor(4 / 7), torch.tensor(3 / 7)
    fresh = process.step(torch.randn_like(x_0), x_0, t, s) - process.blurred(x_0, s)
    assert fresh.std().item() == pytest.approx(0.15, rel=0.01)
    end = process.step(torch.randn_like(x_0), x_0, torch.tensor(1 / 7), torch.tensor(0.0))
    assert torch.equal(end, x_0)  # none at the last step


@pytest.mark.parametrize("axis", ["row", "col"])
@pytest.mark.parametrize("sigma", [0.0, 0.15])
def test_pinned_averages_stay_what_they_were_whatever_the_network_says(axis, sigma):
    process = Averaging(axis, line_order("random", 28).reshape(7, 4), sigma, eta=1.0, pinned=True, channels=3)
    x_0, babble = torch.rand(5, 3, 28, 28), lambda x, t, cond: torch.randn_like(x)
    x_1 = process.degrade(x_0, torch.ones(()), torch.randn_like(x_0))
    *states, end = sample(babble, process, x_1, process.times(7))
    for x in states:
        torch.testing.assert_close(process.means(x), process.means(x_0), atol=1e-5, rtol=0)
    process.pinned = False  # and Algorithm 1 lets go of them
    *_, x, end = sample(babble, process, x_1, process.times(7))
    assert (process.means(x) - process.means(x_0)).abs().mean() > 0.05


def test_the_last_answer_is_the_networks_own():
    process = Averaging("row", line_order("random", 28).reshape(7, 4), sigma=0.1, eta=1.0, pinned=True)
    answer = torch.rand(2, 1, 28, 28)
    x = last(sample(lambda x, t, cond: answer, process, torch.rand(2, 1, 28, 28), process.times(7)))
    assert torch.equal(x, answer)


@pytest.mark.parametrize("groups, steps", [(7, 28), (7, 8), (28, 100), (2, 5)])
def test_more_steps_than_groups_visit_the_times_between_several_times(groups, steps):
    process = Averaging("row", line_order("random", 28).reshape(groups, -1), eta=1.0)
    visited = (process.times(steps) * groups).round().tolist()
    assert len(visited) == steps + 1 and visited == sorted(visited, reverse=True)
    each = [visited.count(k) for k in range(groups + 1)]
    assert each[0] == each[-1] == 1  # where there is nothing to gain: the end, and what is given
    assert max(each[1:-1]) - min(each[1:-1]) <= 1 and min(each) == 1
    torch.testing.assert_close(process.times(groups), torch.linspace(1, 0, groups + 1, dtype=torch.float64))


def test_more_steps_than_groups_are_refused_where_they_change_nothing():
    process = Averaging("row", line_order("random", 28).reshape(7, 4), sigma=0.1)
    x_t, t = torch.rand(2, 1, 28, 28), torch.tensor(3 / 7)
    torch.testing.assert_close(process.step(x_t, torch.rand_like(x_t), t, t), x_t)  # Algorithm 2
    one_group = Averaging("row", torch.arange(28)[None], eta=1.0)  # there is no time between
    assert (process.most_steps, one_group.most_steps) == (7, 1)
    with pytest.raises(AssertionError, match="1 to 7"):
        process.times(8)
    with pytest.raises(AssertionError, match="1 to 1"):
        one_group.times(2)
    process.eta = 1.0
    assert process.most_steps is None


def test_noise_leaves_the_averages_alone():
    process, x_0 = Averaging("row", line_order("random", 28).reshape(7, 4), sigma=0.3), torch.rand(4, 1, 28, 28)
    for t in torch.arange(8) / 7:
        x_t = process.degrade(x_0, t, torch.randn_like(x_0))
        torch.testing.assert_close(process.means(x_t), process.means(x_0), atol=1e-6, rtol=0)
        assert (x_t - process.blurred(x_0, t)).std() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_is_a_permutation(name):
    assert sorted(line_order(name, 28, seed=3).tolist()) == list(range(28))


def test_orders_are_what_their_names_say():
    assert set(line_order("inside-out", 28)[:4].tolist()) == {12, 13, 14, 15}
    assert set(line_order("outside-in", 28)[:4].tolist()) == {0, 1, 26, 27}
    assert not torch.equal(line_order("random", 28, 0), line_order("random", 28, 1))
    assert torch.equal(line_order("random", 28, 1), line_order("random", 28, 1))
    with pytest.raises(AssertionError, match="not 'inside_out'"):
        line_order("inside_out", 28)


def test_its_step_is_the_one_of_every_deterministic_process():
    """Algorithm 2 here and the base class's formula are one; so is DDIM, see test_sampler."""
    process, gaussian = Averaging("row", line_order("random", 28).reshape(7, 4)), Gaussian(LinearBeta())
    x_t, x_0 = torch.rand(2, 1, 28, 28), torch.rand(2, 1, 28, 28)
    t, s = torch.tensor(5 / 7), torch.tensor(2 / 7)
    torch.testing.assert_close(process.step(x_t, x_0, t, s), super(Averaging, process).step(x_t, x_0, t, s))
    assert type(gaussian).__mro__[1] is type(process).__mro__[1]
