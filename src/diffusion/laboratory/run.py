"""The engine of every training command: one run, its folder, and a loop over epochs that survives being killed."""

import math
import time
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from diffusion.api.generation import generate, reconstruct
from diffusion.data import captions
from diffusion.data.batches import Source
from diffusion.data.datasets import Dataset
from diffusion.data.sources import load
from diffusion.data.spelled import spelled
from diffusion.errors import UserError
from diffusion.experiment.build import build
from diffusion.experiment.config import Config
from diffusion.experiment.recipe import Plan
from diffusion.experiment.samplers import AS_SAVED, SamplingOptions
from diffusion.experiment.sampling import build_sampler
from diffusion.experiment.weights import begin_from_teacher, open_codec, open_text_encoder, save_weights, weight_folders
from diffusion.laboratory.budget import Budget
from diffusion.laboratory.flags import RunOptions
from diffusion.laboratory.folder import Folder
from diffusion.laboratory.latents import encoded
from diffusion.laboratory.launch import open_accelerator
from diffusion.laboratory.progress import progress_bar, track
from diffusion.laboratory.settings import check_data, describe_captions, describe_differences, resolve_config
from diffusion.laboratory.stopping import Stopped, on_stop
from diffusion.method.codec import Latents, digest_of
from diffusion.metrics.features import gather
from diffusion.precision import computes_bf16
from diffusion.training.trainer import SYNC_EVERY, Trainer

EXAMPLES = 8  # captions of the training data that a weight file tells, so that whoever loads it knows how to ask


class Stream(Protocol):
    """Data from elsewhere, as those of the room streaming are."""

    load: Callable[..., Source]  # as data.sources.load

    def on_wait(self, waiting: Callable[[], object]) -> None: ...


class Run:
    """A run of a Config: trains epoch by epoch, keeps state, weights and scores in runs/{name}/.

    `experiment` holds the averaged weights: those that are sampled and saved.
    """

    def __init__(
        self,
        base: Config,
        options: RunOptions,
        name: str,
        weights: str,  # names a weight file by {dataset} and {epoch}
        explicit: Collection[str] = (),  # settings that a file or an override gave: a resumed run insists on them
        folder: Path | None = None,
        stream: Stream | None = None,  # where the data come from, if not from files
    ):
        self.accelerator = open_accelerator(options.device)
        self.device, self.is_main = self.accelerator.device, self.accelerator.is_main_process
        self.options, self.began = options, time.monotonic()
        dataset = options.changes.get("dataset", base.dataset)
        self.name = name if dataset == base.dataset else f"{name}_{dataset}"
        self.weights = weights.replace("{dataset}", dataset.lower())
        self.folder = Folder(folder or options.out / "runs" / self.name)
        self.config = self._resolve(base, explicit)
        with self.accelerator.main_process_first():  # one process fetches, the others find the files
            get, given = stream.load if stream else load, (options.data_root, self.device)
            self.source = get(self.config.dataset, "train", *given, self.config.samples)
            self.test = get(self.config.dataset, "test", *given).whole().shuffled()
            pretrained = open_text_encoder(self.config, options.data_root)
        first = self.source.whole(EXAMPLES)
        self.examples = captions.decode(first.labels, first.classes) if self.config.reads else []
        if pretrained:
            self.source, self.test = (spelled(each, pretrained.pieces) for each in (self.source, self.test))
            first = spelled(first, pretrained.pieces)
        self.config = describe_captions(self.config, first, options.resume)
        check_data(self.config, self.test)
        folders = [*weight_folders(), *sorted((options.out / "runs").glob("*"))]
        untrained = build(self.config, codec=open_codec(self.config, folders), pretrained=pretrained)
        self.experiment = begin_from_teacher(untrained, folders).to(self.device)
        self.trainer = Trainer(self.experiment, self._training_data(), self.accelerator)
        self.history: list[dict[str, Any]] = []  # one record an epoch, the untrained epoch 0 first
        self.seconds = 0.0  # of training, over all sessions
        self.written: list[Path] = []
        self._signal, self._training, self._budget = 0, False, Budget()
        if stream:
            stream.on_wait(self._stop_waiting)

    @cached_property
    def data(self) -> Dataset:
        """The training images, all of them in memory: what samples are scored against."""
        return self.source.whole()

    @property
    def limit(self) -> float:
        """The step after which the training ends; infinite as long as that is not known."""
        return min(self.options.limit_steps or math.inf, self.trainer.end or math.inf)

    def _resolve(self, base: Config, explicit: Collection[str]) -> Config:
        changes = self.options.changes
        config = resolve_config(base, changes, explicit, self.device)
        if self.options.resume and (saved := self.folder.config()):
            if others := describe_differences(saved, config, changes, explicit):
                self.say(f"the run goes on as it was begun, with {others}")
            config = saved
        if config.precision == "bf16" and not computes_bf16(self.device):
            self.say("this processor could only emulate bf16: it computes in fp32")
        return config

    def _training_data(self) -> Source:
        """What is trained on: images or, of a model of latents, those; without what is held out."""
        if self.config.codec == "pixels" and not self.config.held_out:
            return self.source
        data = self.data
        if self.config.codec != "pixels":
            with self.accelerator.main_process_first():  # one encodes, the others find the file
                data = encoded(self.experiment, data, "train", self.options.data_root, self.say)
        data, self.held_out = data.without(self.config.held_out)
        return data

    # --- Train ---

    def epochs(self, total: int) -> Iterator[int]:
        """Train, yielding each epoch's number (0 is untrained) when its `record` is due. Raises Stopped."""
        self._open_folder()
        per_epoch = self.trainer.steps_per_epoch
        while self.history and self.history[-1]["step"] < self.history[-1]["epoch"] * per_epoch:
            self.history.pop()  # an epoch that --limit-steps cut short is not done
        for epoch in range(len(self.history), total + 1):
            until = min(epoch * per_epoch, self.limit)
            self._train(until, until, f"epoch {epoch}/{total}")
            yield epoch
            if epoch * per_epoch >= self.limit:
                return

    def steps(self, plan: Plan) -> Iterator[int]:
        """Train as planned, yielding the number of steps done when their `record` is due. Raises Stopped.

        A run resumed with a longer plan is extended: its learning rate rises again, and falls towards the new end.
        """
        trainer = self.trainer
        self._budget = Budget(plan, trainer.steps_per_epoch, self.config.decay)
        state = self._open_folder()
        planned, trainer.end = trainer.end, self._budget.resume(state, trainer.end, self.seconds)
        if planned and trainer.end != planned:
            self.say(f"the run, planned to end at step {planned:,}, is extended")
        done = self.history[-1]["step"] if self.history else -1
        while done < self.limit:
            due = plan.next_mark(done)
            while trainer.step < min(due, self.limit):
                self._train(min(due, self.limit), self.limit, "training")  # returns when the end becomes known, too
            done = trainer.step
            yield done

    def record(self, epoch: float, **scores: Any) -> None:
        """Close an epoch: its weights, its line in metrics.jsonl, the state. `scores` are plain values."""
        losses = self.trainer.losses[-self.trainer.steps_per_epoch :]
        done, loss = {"epoch": epoch, "step": self.trainer.step}, sum(losses) / len(losses) if losses else None
        self.history.append({**done, "loss": loss, "seconds": round(self.seconds, 1), **scores})
        self._write_weights(epoch, loss, scores)
        self._save()

    # --- Sample ---

    def sample(
        self, count: int, seed: int, text: str, options: SamplingOptions = AS_SAVED, *, labels=None, originals=None
    ) -> Tensor:
        """`count` samples (count, C, H, W) in [0, 1], drawn by all processes together, for all of them.

        They have the `labels` (count,), or they are the first `count` of `originals`, degraded and restored. An
        autoencoder draws none: it reconstructs as many test images.
        """
        if self.config.is_codec:
            return gather(reconstruct(self.experiment, self.share(self.test.images[:count])))
        index = self.share(torch.arange(count, device=self.device))
        given = {"labels": labels, "originals": originals}
        given = {name: values if values is None else values[index] for name, values in given.items()}
        states = build_sampler(self.experiment, options).steps + 1
        with progress_bar(len(index) * states, text, show=self.is_main) as bar:
            return gather(generate(self.experiment, index, options, seed=seed, **given, tick=bar.update))

    def share(self, whole: Tensor) -> Tensor:
        """This process's part of it."""
        return whole.tensor_split(self.accelerator.num_processes)[self.accelerator.process_index]

    def say(self, text: str) -> None:
        """Print it once, whatever the number of processes."""
        if self.is_main:
            print(text, flush=True)

    # --- Training, kept alive ---

    def _train(self, until: float, total: float, text: str) -> None:
        """Train up to a step, or to where minutes make the end of the training known; the bar counts to `total`."""
        self._training, budget, trainer = True, self._budget, self.trainer
        now = saved = time.monotonic()
        with progress_bar(total, text, initial=trainer.step, show=self.is_main) as bar:
            for step in trainer.train(int(until)):
                before, now = now, time.monotonic()
                self.seconds += now - before
                if step.number % SYNC_EVERY == 0:
                    bar.set_postfix(loss=f"{step.loss:.4f}", refresh=False)
                    if budget.minutes and not trainer.end:  # the bar says how much time is left
                        bar.total = min(round(step.number * 60 * budget.minutes / self.seconds), self.limit)
                bar.update(1)
                due, end = now - saved >= self.options.save_every, budget.promised(step.number, self.seconds)
                stop, due, end = self._agree(step.number, due, end)
                budget.settled = budget.settled or end > 0
                if sooner := 0 < end < (trainer.end or math.inf):
                    trainer.end = end
                if stop or sooner:
                    self._signal = self._signal or stop
                    break
                if due:
                    saved = now
                    self._save()
        self._save()
        self._training = False
        if self._signal:
            if "{epoch}" not in self.weights:  # one file for all of the run: it can be used before the run goes on
                self._write_weights(trainer.step / trainer.steps_per_epoch)
            raise Stopped(self._signal)

    def _write_weights(self, epoch: float, loss: float | None = None, scores: dict[str, Any] | None = None) -> None:
        self.trainer.standardise_codec()
        if self.is_main:
            done = {"epoch": epoch, "step": self.trainer.step}
            self.experiment.about = {**done, "holds": "ema", "loss": loss, "scores": scores or {}}
            self.experiment.about |= {"examples": self.examples} if self.examples else {}
            path = self.folder.path / self.weights.format(epoch=epoch)
            self.written.append(save_weights(path, self.experiment))

    def _agree(self, step: int, save: bool, end: int) -> tuple[int, bool, int]:
        """The signal, the wish to save and the promised end of any process, known to all at the same step."""
        if self.accelerator.num_processes == 1:
            return self._signal, save, end
        if step % SYNC_EVERY:
            return 0, False, 0
        wishes = self.accelerator.gather(torch.tensor([[self._signal, int(save), end]], device=self.device))
        stop, save, end = wishes.max(0).values.tolist()
        return stop, bool(save), end

    def _stop_waiting(self) -> None:
        """For a stream that lets a step wait: end the command if a signal came. The last state is on disk."""
        if self._signal:
            raise Stopped(self._signal)

    def _stop(self, signal: int) -> None:
        self._signal = signal
        if not self._training:  # sampling or measuring: the last state is on disk already
            raise Stopped(signal)

    # --- The folder ---

    def _open_folder(self) -> dict[str, Any]:
        """Take up the saved state, and return it; or write the first one, {} returned: a bad disk shows at once."""
        if self.is_main:
            self.folder.take()
        state = self.folder.state() if self.options.resume else None
        if state:
            self._restore(state)
        else:
            self.accelerator.wait_for_everyone()  # until all have looked for a state
            if self.options.resume:
                self.say(f"there is nothing to resume in {str(self.folder.path)!r}: a new run begins")
            if self.is_main:
                self.folder.begin(self.config)
            self.trainer.fit_prior(lambda parts: track(parts, "what averages look like", show=self.is_main))
            self._save()
        on_stop(self._stop)
        return state or {}

    @cached_property
    def _digests(self) -> dict[str, str | None]:
        """Of the codec and the teacher that this run builds on: a resumed one needs the same."""
        codec, teacher = self.experiment.codec, self.experiment.teacher
        of_codec = codec.digest if isinstance(codec, Latents) and not self.config.is_codec else None
        return {"codec": of_codec, "teacher": teacher and digest_of(teacher.network)}

    def _restore(self, state: dict[str, Any]) -> None:
        for what, known in self._digests.items():
            if state.get(what, known) != known:
                was = f"the weights of {what} {getattr(self.config, what)!r} are not those that this run began with"
                raise UserError(f"{was}: bring those back, or start anew without --resume")
        if state.get("data", self.source.fingerprint) != self.source.fingerprint:
            what = f"{self.config.dataset} is not what the run in {str(self.folder.path)!r} was trained on"
            raise UserError(f"{what}: its images changed. Bring those back, or start anew without --resume")
        try:
            self.trainer.load_state(state["trainer"])
            if not self.config.is_codec:
                self.experiment.process.load_state_dict(state["process"])
            self.history, self.seconds = state["history"], state["seconds"]
        except UserError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError):
            where = f"the state in {str(self.folder.path)!r} is not one of this run"
            raise UserError(f"{where}: start anew without --resume") from None

    def _save(self) -> None:
        state = {"trainer": self.trainer.state(), "process": self.experiment.process_state(), **self._digests}
        state |= {"history": self.history, "seconds": self.seconds, **self._budget.state()}
        state["data"] = self.source.fingerprint
        if self.is_main:
            self.folder.save(state, self.history)
