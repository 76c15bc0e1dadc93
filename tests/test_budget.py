"""When a training ends: budgets of steps, epochs and minutes, promised once and kept over a resume."""

import pytest

from diffusion.errors import UserError
from diffusion.experiment.recipe import Plan
from diffusion.laboratory.budget import Budget


@pytest.mark.parametrize("plan, end", [
    (Plan(steps=7), 7), (Plan(epochs=0.5), 50), (Plan(steps=70, epochs=0.5), 50), (Plan(steps=30, epochs=0.5), 30),
    (Plan(epochs=1e-9), 1), (Plan(minutes=5), None), (Plan(minutes=5, steps=9), 9), (Plan(), None),
])  # fmt: skip
def test_of_steps_and_epochs_the_sooner_is_the_end(plan, end):
    budget = Budget(plan, steps_per_epoch=100)
    assert budget.end == end
    assert budget.resume({}, None, 0.0) == end  # of a new run, too


def promises(budget, steps, seconds_a_step, first=0.0):
    """What is promised after each of so many steps, the first of which takes `first` seconds more."""
    made = []
    for step in range(1, steps + 1):
        made.append(budget.promised(step, first + step * seconds_a_step))
        budget.settled = budget.settled or made[-1] > 0
    return made


@pytest.mark.parametrize("decay, first, step, end", [
    (0.0, 0.0, 60, 60),  # minutes that nothing has to know of before they are over
    (0.5, 0.0, 30, 60),  # half of them has to fall
    (0.9, 20.0, 2, 40),  # a slow first step (a compiler's) tells nothing of the others
    (0.5, 58.0, 2, 2),
])  # fmt: skip
def test_minutes_promise_their_end_once_when_the_learning_rate_has_to_fall(decay, first, step, end):
    made = promises(Budget(Plan(minutes=1), decay=decay), 60, 1.0, first)
    assert made[step - 1] == end and not any(made[: step - 1]) and not any(made[step:])


def test_steps_alone_promise_nothing():
    assert not any(promises(Budget(Plan(steps=9), decay=0.5), 20, 1.0))


# --- Resumed ---

STARTED = {"minutes": 5.0, "settled": False}
SETTLED = {"minutes": 5.0, "settled": True}


@pytest.mark.parametrize("plan, state, planned, seconds, end, settled", [
    (Plan(minutes=5), STARTED, None, 10, None, False),  # killed before its end was known
    (Plan(minutes=5), SETTLED, 400, 200, 400, True),  # … and after: the same end
    (Plan(minutes=4), SETTLED, 400, 200, 400, True),  # it cannot come sooner
    (Plan(minutes=6), SETTLED, 400, 200, None, False),  # more minutes find another
    (Plan(minutes=5, steps=900), STARTED, 900, 10, 900, False),  # both count, and the minutes are yet to speak
    (Plan(minutes=5, steps=900), SETTLED, 400, 200, 400, True),
    (Plan(steps=900), SETTLED, 400, 300, 900, False),
    (Plan(steps=400), {"minutes": None}, 400, 300, 400, False),
    (Plan(minutes=20), {"minutes": None}, 400, 300, None, False),  # more than those steps took
    (Plan(minutes=5), {"minutes": None}, 400, 300, 400, False),
])  # fmt: skip
def test_a_longer_plan_extends_a_run_and_no_other_does(plan, state, planned, seconds, end, settled):
    budget = Budget(plan, decay=0.5)
    assert budget.resume(state, planned, seconds) == end
    assert budget.settled == settled


def test_fewer_steps_than_planned_are_refused():
    with pytest.raises(UserError, match="was planned to end at step 1,000, not 999"):
        Budget(Plan(steps=999)).resume({"minutes": None}, 1000, 1.0)


def test_less_is_remembered_as_the_most_there_was():
    budget = Budget(Plan(minutes=3))
    budget.resume(SETTLED, 400, 300)
    assert budget.state() == SETTLED
