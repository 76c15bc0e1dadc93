"""Requests computed together come out as each alone, leave when they are given up, and fail alone."""

import time

import pytest
import torch

from diffusion import configure
from diffusion.errors import Failure
from diffusion.experiment.samplers import ALWAYS, SamplingOptions
from diffusion.serving.batcher import Batcher
from diffusion.serving.catalogue import load_catalogue
from diffusion.serving.cohort import DeadlineExceeded, Job
from diffusion.serving.suspended import Closed, Suspended
from diffusion.serving.tasks import Generation, Inpainting, Interpolation, Task, Variation

NEAR = 1 / 255  # that pixels may differ by, whatever else is in the batch


@pytest.fixture(scope="module")
def models():
    """As they are served."""
    names = ("unet", "unet_fashion", "cold_unet row", "cold_unet col", "default_28 row", "default@20")
    return {served.name: served.model for served in load_catalogue(names, torch.device("cpu"))}


@pytest.fixture(scope="module")
def tiny():
    return configure(network="unet", hidden=(8, 8), classes=10, schedule="rectified", target="velocity")


@pytest.fixture
def batcher():
    worker = Batcher(max_rows=64)
    worker.start()
    yield worker
    worker.stop(timeout=20)
    assert not worker.alive


def generation(model, count, seed=0, label=None, **options) -> Job:
    index = torch.arange(count)
    labels = None if not model.config.classes else index % 10 if label is None else torch.full((count,), label)
    given = {"experiment": model.experiment, "options": SamplingOptions(**options), "count": count}
    return Job(Generation(**given, seeds=torch.full((count,), seed), index=index, labels=labels))


def images(batcher, *jobs):
    for job in jobs:
        batcher.submit(job)
    return [job.images.result(60) for job in jobs]


def rounds(batcher) -> list[int]:
    """The rows of every round from now on."""
    seen = []
    batcher.observe = lambda rows, *seconds: seen.append(rows)
    return seen


# --- A function that is suspended at its network calls ---


def test_it_goes_on_with_the_answer_and_ends_with_its_result():
    x = torch.ones(1)
    twice = Suspended(lambda ask: ask(ask(x, x), x) + 1)
    assert torch.equal(twice.resume().x, x)
    assert torch.equal(twice.resume(5 * x).x, 5 * x)
    assert twice.resume(7 * x) is None and twice.finished and torch.equal(twice.result, 8 * x)


def test_errors_go_both_ways():
    def careful(ask):
        try:
            ask(torch.ones(1), torch.ones(1))
        except ValueError:
            raise KeyError("mine") from None

    suspended = Suspended(careful)
    suspended.resume()
    with pytest.raises(KeyError, match="mine"):
        suspended.resume(ValueError("yours"))


def test_one_that_is_closed_unwinds_where_it_waits():
    seen = []

    def tidy(ask):
        try:
            ask(torch.ones(1), torch.ones(1))
        except Closed:
            seen.append("closed")
            raise

    suspended = Suspended(tidy)
    suspended.close()  # not begun: nothing to unwind
    suspended.resume()
    suspended.close()
    assert seen == ["closed"] and suspended.finished


# --- Whatever the batch mates ---


@pytest.mark.parametrize("name", ["unet", "unet_fashion", "cold_unet col", "default_28 row", "default@20"])
def test_an_image_depends_on_its_own_seed_alone(models, batcher, name):
    model, settings = models[name], {"seed": 3}
    if model.config.process == "gaussian":
        settings |= {"steps": 6, "sampler": "ddim" if name == "default@20" else "sde"}
    alone = model.sample(16, **settings)
    ones = images(batcher, *[generation(model, 1, **settings) for _ in range(2)])  # one cohort of two equal jobs
    three, sixteen = images(batcher, generation(model, 3, **settings), generation(model, 16, **settings))
    for part in (*ones, three, sixteen):
        torch.testing.assert_close(part, alone[: len(part)], atol=NEAR, rtol=0)
    (single,) = images(batcher, generation(model, 1, **settings))
    torch.testing.assert_close(single, alone[:1], atol=NEAR, rtol=0)


def test_mixed_requests_in_one_call_are_those_of_the_library(models, batcher):
    unet, cold, digits = models["unet"], models["default_28 row"], models["unet"].sample(2, label=3, steps=3)
    orders = [
        (unet, 3, {"seed": 7, "label": 3, "steps": 5}),
        (unet, 1, {"seed": 8, "label": 4, "steps": 5}),
        (unet, 2, {"seed": 9, "label": 5, "steps": 3, "sampler": "heun", "guidance_scale": 2.0}),
        (
            unet,
            4,
            {"seed": 1, "label": 6, "steps": 9, "sampler": "ddpm", "guidance_scale": 3.0, "interval": (0.2, 0.7)},
        ),
        (unet, 2, {"seed": 1, "label": 6, "steps": 4, "sampler": "dpm", "guidance_scale": 0.0}),
        (cold, 5, {"seed": 2, "steps": 7}),
    ]
    mask = torch.zeros(28, 28)
    mask[:, :14] = 1
    given = {"experiment": unet.experiment, "label": 3, "seed": 5}
    ddpm, ddim = SamplingOptions("ddpm", 5), SamplingOptions("ddim", 5, 2.0)
    edits = [
        Variation(images=digits, options=SamplingOptions(), count=2, strength=0.6, **given),
        Inpainting(images=digits, options=ddpm, count=2, mask=mask, resample=2, **given),
        Interpolation(ends=(digits[0], digits[1]), options=ddim, count=3, **given),
    ]
    jobs = [*(generation(model, count, **settings) for model, count, settings in orders), *map(Job, edits)]
    wanted = [model.sample(count, **settings) for model, count, settings in orders] + [
        unet.edit.vary(digits, 0.6, 3, seed=5),
        unet.edit.inpaint(digits, mask, 3, seed=5, steps=5, resample=2),
        unet.edit.interpolate(*digits, 3, 3, steps=5, guidance_scale=2.0),
    ]
    for job, given, expected in zip(jobs, images(batcher, *jobs), wanted):
        torch.testing.assert_close(given, expected, atol=NEAR, rtol=0)
        assert job.left == 0 or job.task.options.interval != ALWAYS, "a task costs what it said, or less"


def test_equal_settings_are_one_cohort_and_others_share_its_calls(tiny, batcher, monkeypatch):
    seen, cohorts, compute = rounds(batcher), [], Generation.compute
    monkeypatch.setattr(Generation, "compute", lambda *args, mates: cohorts.append(len(mates)) or compute(*args, mates))
    equal = [generation(tiny, 2, seed=seed, steps=3) for seed in range(3)]
    with batcher._changed:  # so that all are there when it looks
        for job in (jobs := [*equal, generation(tiny, 1, steps=3, sampler="ddim")]):
            batcher.submit(job)
    for job in jobs:
        job.images.result(20)
    batcher.stop(20)
    assert seen == [7, 7, 7] and sorted(cohorts) == [1, 3]


def test_seven_rows_at_most_are_seven_rows_at_most(tiny):
    calls = []
    predict = type(tiny.experiment.denoiser).predict
    spy = lambda x, t, cond: calls.append(len(x)) or predict(tiny.experiment.denoiser, x, t, cond)
    vars(tiny.experiment.denoiser)["predict"] = spy
    worker = Batcher(max_rows=7)
    worker.start()
    try:
        many, alone = generation(tiny, 20, seed=3, label=1, steps=2, guidance_scale=2.0), generation(tiny, 1, steps=2)
        whole, _ = images(worker, many, alone)
    finally:
        worker.stop(20)
        del vars(tiny.experiment.denoiser)["predict"]
    assert max(calls) <= 7 and sum(calls) == 20 * 2 * 2 + 2
    expected = tiny.sample(20, label=1, seed=3, steps=2, guidance_scale=2.0)
    torch.testing.assert_close(whole, expected, atol=NEAR, rtol=0)


# --- Those who leave, and those who fail ---


@pytest.mark.parametrize("settings", [{}, {"sampler": "ddim"}])  # of the same cohort, or another
def test_a_job_that_is_given_up_frees_its_rows_at_the_next_step(tiny, batcher, settings):
    stays, leaves = generation(tiny, 2, seed=1, steps=20), generation(tiny, 3, seed=2, steps=20, **settings)
    seen, reached = rounds(batcher), []
    stays.task.watch = lambda state: reached.append(state) or (len(reached) == 5 and leaves.images.cancel())
    with batcher._changed:  # so that both are there when it looks
        batcher.submit(leaves)
        batcher.submit(stays)
    torch.testing.assert_close(stays.images.result(20), tiny.sample(2, seed=1, steps=20), atol=NEAR, rtol=0)
    batcher.stop(20)
    assert leaves.images.cancelled() and len(reached) == 20
    assert seen[:5] == [5] * 5 and set(seen[7:]) == {2}, "the watcher hears of a step one call later"


def test_a_job_past_its_deadline_is_told_so_and_leaves(tiny, batcher):
    late = generation(tiny, 4, steps=900)
    late.deadline = time.monotonic() + 0.1
    batcher.submit(late)
    with pytest.raises(DeadlineExceeded):
        late.images.result(20)
    assert images(batcher, generation(tiny, 1, steps=2))[0].shape == (1, 1, 28, 28) and batcher.backlog == 0


class Broken(Task):
    """Fails after a call, or by its call."""

    def __init__(self, model, call):
        super().__init__(experiment=model.experiment, options=SamplingOptions(), count=1)
        self.call = call

    def compute(self, ask, mates):
        ask(*self.call)
        raise RuntimeError("broken")


def test_a_job_that_fails_fails_alone(tiny, batcher):
    x, t = torch.zeros(1, 1, 28, 28), torch.ones(())
    jobs = [Job(Broken(tiny, (x, t))), Job(Broken(tiny, (x[:, :, :5, :5], t))), generation(tiny, 2, seed=1, steps=3)]
    for job in jobs:
        batcher.submit(job)
    with pytest.raises(RuntimeError, match="broken"):
        jobs[0].images.result(20)
    with pytest.raises(RuntimeError):
        jobs[1].images.result(20)
    torch.testing.assert_close(jobs[2].images.result(20), tiny.sample(2, seed=1, steps=3), atol=NEAR, rtol=0)


def test_one_of_a_cohort_that_fails_does_so_alone(tiny, batcher):
    def refuse(state):
        raise RuntimeError("broken")

    jobs = [generation(tiny, 2, seed=seed, steps=3) for seed in range(3)]
    jobs[1].task.watch = refuse
    with batcher._changed:
        for job in jobs:
            batcher.submit(job)
    with pytest.raises(RuntimeError, match="broken"):
        jobs[1].images.result(20)
    for seed in (0, 2):
        whole = jobs[seed].images.result(20)
        torch.testing.assert_close(whole, tiny.sample(2, seed=seed, steps=3), atol=NEAR, rtol=0)


def test_one_that_is_stopped_says_so_to_what_is_left(tiny):
    worker = Batcher()
    worker.start()
    job = generation(tiny, 4, steps=900)
    worker.submit(job)
    worker.stop(20)
    with pytest.raises(Failure, match="stopped before"):
        job.images.result(0)
    assert not worker.alive and not worker.moves


def test_the_backlog_counts_a_job_while_it_is_begun(tiny, batcher, monkeypatch):
    """It is then neither waiting nor in a cohort."""
    seen, job = [], generation(tiny, 2, steps=5)
    compute = Generation.compute
    monkeypatch.setattr(
        Generation, "compute", lambda *given, **more: seen.append(batcher.backlog) or compute(*given, **more)
    )
    images(batcher, job)
    assert seen == [10] and batcher.backlog == 0
