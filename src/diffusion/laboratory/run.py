"""The engine of every training command: one run, its folder, and a loop over epochs that survives being killed."""

import argparse
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors
from tqdm import tqdm

from diffusion import figures
from diffusion.api.generation import degrade_images, generate
from diffusion.data.datasets import load
from diffusion.errors import UserError
from diffusion.experiment.build import Experiment, build
from diffusion.experiment.config import Config
from diffusion.experiment.recipe import Plan
from diffusion.experiment.samplers import build_sampler
from diffusion.experiment.weights import save_weights
from diffusion.laboratory.budget import Budget
from diffusion.laboratory.folder import Folder
from diffusion.laboratory.launch import open_accelerator
from diffusion.laboratory.settings import check_resumed, decided, kept
from diffusion.laboratory.stopping import Stopped, on_stop
from diffusion.metrics.scores import Scores
from diffusion.precision import computes_bf16
from diffusion.training.trainer import SYNC_EVERY, Trainer

FITTED = 20_000  # training images that a process learns its prior from


class Laboratory:
    """A run of a Config: trains epoch by epoch, keeps state, weights and scores in runs/{name}/."""

    def __init__(self, base: Config, args: argparse.Namespace, name: str, weights: str,
                 told: Collection[str] = (), folder: Path | None = None):  # fmt: skip
        """`name` is the run's; `weights` names a weight file by {dataset} and {epoch}.

        Of the settings of `base`, a resumed run insists on those that were `told` (by a file, an override).
        """
        self.accelerator = open_accelerator(args.device)
        self.args, self.began = args, time.monotonic()
        dataset = args.dataset or base.dataset
        self.name = name if dataset == base.dataset else f"{name}_{dataset}"
        self.weights = weights.replace("{dataset}", dataset.lower())
        self.folder = Folder(folder or args.out / "runs" / self.name)
        self.config = decided(base, args, told, self.device)
        if args.resume and (saved := self.folder.config()):
            check_resumed(saved, self.config, args, told)
            if (others := kept(saved, self.config)) and self.is_main:
                print(f"the run goes on as it was begun, with {others}")
            self.config = saved
        if self.config.precision == "bf16" and not computes_bf16(self.device) and self.is_main:
            print("this processor could only emulate bf16: it computes in fp32")
        with self.accelerator.main_process_first():  # one process fetches, the others find the files
            self.data = load(self.config.dataset, "train", args.data_root, self.device)
            self.test = load(self.config.dataset, "test", args.data_root, self.device).shuffled()
        if self.config.classes not in (0, len(self.data.classes)):
            raise UserError(f"{self.config.dataset} has {len(self.data.classes)} labels: classes must be that or 0, "
                            f"not {self.config.classes}")  # fmt: skip
        self.experiment = e = build(self.config).to(self.device)
        self.trainer = Trainer(e.denoiser, e.process, e.codec, self.data, self.config, self.accelerator)
        self.history: list[dict[str, Any]] = []  # one record an epoch, the untrained epoch 0 first
        self.seconds = 0.0  # of training, over all sessions
        self.written: list[Path] = []
        self._signal, self._training = 0, False
        self._budget = Budget()

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def is_main(self) -> bool:
        return self.accelerator.is_main_process

    @property
    def averaged(self) -> Experiment:
        """The experiment with the averaged weights, those that are sampled and shipped."""
        e = self.experiment
        return Experiment(e.config, e.codec, e.process, self.trainer.ema, {})

    # --- Train ---

    def epochs(self, total: int) -> Iterator[int]:
        """Train, yielding each epoch's number (0 is untrained) when its `record` is due. Raises Stopped."""
        self._open_folder()
        on_stop(self._stop)
        per_epoch, limit = self.trainer.steps_per_epoch, self.args.limit_steps or math.inf
        while self.history and self.history[-1]["step"] < self.history[-1]["epoch"] * per_epoch:
            self.history.pop()  # an epoch that --limit-steps cut short is not done
        for epoch in range(len(self.history), total + 1):
            self._train(int(min(epoch * per_epoch, limit)), f"epoch {epoch}/{total}")
            yield epoch
            if epoch * per_epoch >= limit:
                return

    def marks(self, plan: Plan) -> Iterator[int]:
        """Train as planned, yielding the number of steps done when their `record` is due. Raises Stopped.

        A run resumed with a longer plan is extended: its learning rate rises again, and falls towards the new end.
        """
        trainer, limit = self.trainer, self.args.limit_steps or math.inf
        self._budget = Budget(plan, trainer.steps_per_epoch, self.config.decay)
        begun = self._open_folder()
        on_stop(self._stop)
        before, trainer.end = trainer.end, self._budget.resume(begun, trainer.end, self.seconds)
        if before and trainer.end != before and self.is_main:
            print(f"the run, planned to end at step {before:,}, is extended")
        done = self.history[-1]["step"] if self.history else -1
        while done < min(limit, trainer.end or math.inf):
            mark = min(plan.mark_after(done), limit)
            while trainer.step < min(mark, trainer.end or mark):
                self._train(min(mark, trainer.end or mark), "training")  # returns early when the end becomes known
            done = trainer.step
            yield done

    def record(self, epoch: float, **scores: Any) -> None:
        """Close an epoch: its weights, its line in metrics.jsonl, the state. `scores` are plain values."""
        losses = self.trainer.losses[-self.trainer.steps_per_epoch :]
        mean = sum(losses) / len(losses) if losses else None
        line = {"epoch": epoch, "step": self.trainer.step, "loss": mean, "seconds": round(self.seconds, 1), **scores}
        self.history.append(line)
        if self.is_main:
            about = {"epoch": epoch, "step": self.trainer.step, "holds": "ema", "loss": mean, "scores": scores}
            path = self.folder.path / self.weights.format(epoch=epoch)
            self.written.append(save_weights(path, self.averaged, **about))
        self._save()

    # --- Sample ---

    def check_sampling(self, **how: Any) -> None:
        """Raise UserError for impossible options now, not after an hour of training."""
        build_sampler(self.experiment, **how)

    def share(self, whole: Tensor) -> Tensor:
        """This process's part of it."""
        return whole.tensor_split(self.accelerator.num_processes)[self.accelerator.process_index]

    def sample(
        self,
        count: int,
        seed: int,
        text: str,
        originals: Tensor | None = None,
        labels: Tensor | None = None,
        guidance_scale: float = 1.0,
        experiment: Experiment | None = None,
        **how: Any,
    ) -> Tensor:
        """This process's share of `count` samples (n, C, H, W) in [0, 1] of an experiment, or of the averaged weights.

        Those of `originals`, if given, begin at what is left of the first `count` of them; `labels` are also of all.
        """
        experiment = experiment or self.averaged
        index = self.share(torch.arange(count, device=self.device))
        told = {"originals": None if originals is None else originals[index], "guidance_scale": guidance_scale}
        told["labels"] = None if labels is None else labels[index]
        with self.bar(len(index) * len(build_sampler(experiment, **how).times), text, unit="step") as bar:
            return generate(experiment, index, seed, tick=bar.update, **told, **how)

    def degrade_images(self, images: Tensor, t: float | Tensor) -> Tensor:
        """Images (B, C, H, W), uint8 or in [0, 1], degraded to times t, one or (B,); back in [0, 1]."""
        return degrade_images(self.experiment, images, torch.as_tensor(t))

    def gather(self, share: Tensor) -> Tensor:
        """The shares (n, …) of all processes, in order."""
        return torch.cat(gather_all_tensors(share)) if self.accelerator.num_processes > 1 else share

    # --- Show ---

    def bar(self, total: int, text: str, **kwargs: Any) -> tqdm:
        return tqdm(total=total, desc=text, disable=not self.is_main, leave=False, dynamic_ncols=True, **kwargs)

    def progress(self, parts: Sequence[Any], text: str) -> Iterator[Any]:
        """Pass the parts on, moving a bar."""
        return iter(tqdm(parts, desc=text, disable=not self.is_main, leave=False, dynamic_ncols=True))

    def draw(self, figure: Callable[..., Path], *args: Any, name: str, **kwargs: Any) -> None:
        """Make a figure of that file name, on the main process, and note it for the report."""
        if self.is_main:
            self.written.append(figure(*args, path=self.args.out / name, **kwargs))

    def draw_curves(self, real: Scores) -> None:
        """Loss, FID and inception score against the epoch, with what real images score."""
        title, per_epoch = f"{self.name}, {self.config.dataset}", self.trainer.steps_per_epoch
        through = f"{title}\nN = {real.n:,}, {real.extractor}"
        self.draw(figures.losses, self.trainer.losses, per_epoch, title=title, name=f"Plots/losses_for_{self.name}.png")
        measured = [line for line in self.history if "fid" in line]
        for key, label, stem in (("fid", "FID", "fid"), ("inception_score", "inception score", "incept_score")):
            self.draw(
                figures.curve,
                [line["epoch"] for line in measured],
                [line[key] for line in measured],
                spread=[line["inception_score_sd"] for line in measured] if key == "inception_score" else None,
                title=through,
                label=label,
                lines={"real test images": getattr(real, key)},
                name=f"Plots/{stem}_for_{self.name}.png",
            )

    def report(self, table: str) -> None:
        """Print the table, how long it took, and what was written where."""
        if not self.is_main:
            return
        print(f"\n{table}\n{self.trainer.step:,} training steps took {self.seconds:.0f} s, "
              f"this command {time.monotonic() - self.began:.0f} s; it wrote")  # fmt: skip
        folders: dict[Path, dict[str, None]] = {}
        for path in [*self.folder.files, *self.written]:
            folders.setdefault(path.parent, {})[path.name] = None
        for folder, names in folders.items():
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            print(f"  {folder}/: {', '.join([*names][:6])}{more}")

    # --- Training, kept alive ---

    def _train(self, until: int, text: str) -> None:
        """Train up to a step, or to where minutes make the end of the training known."""
        began = saved = time.monotonic()
        self._training, budget, limit = True, self._budget, self.args.limit_steps or math.inf
        total = min(self.trainer.end or (math.inf if budget.minutes else until), limit)
        known = total if total < math.inf else None
        with self.bar(known, text, initial=self.trainer.step, unit="step") as bar:
            for step in self.trainer.train(until):
                passed = self.seconds + time.monotonic() - began
                if step.number % SYNC_EVERY == 0:
                    bar.set_postfix(loss=f"{step.loss:.4f}", refresh=False)
                    if budget.minutes and not self.trainer.end:
                        bar.total = min(budget.likely(step.number, passed), limit)  # tqdm's ETA comes of it
                bar.update(1)
                due = time.monotonic() - saved >= self.args.save_every
                stop, save, end = self._agree(step.number, due, budget.promised(step.number, passed))
                budget.settled = budget.settled or end > 0
                if end and end < (self.trainer.end or math.inf):
                    self.trainer.end = end
                    break
                if stop or save:
                    saved = time.monotonic()
                    self.seconds, began = self.seconds + saved - began, saved
                    self._save()
                if stop:
                    raise Stopped(stop)
        self._training = False
        self.seconds += time.monotonic() - began
        self._save()
        if self._signal:
            raise Stopped(self._signal)

    def _agree(self, step: int, save: bool, end: int) -> tuple[int, bool, int]:
        """The signal, the wish to save and the promised end of any process, known to all at the same step."""
        if self.accelerator.num_processes == 1:
            return self._signal, save, end
        if step % SYNC_EVERY:
            return 0, False, 0
        wishes = self.accelerator.gather(torch.tensor([[self._signal, int(save), end]], device=self.device))
        stop, save, end = wishes.max(0).values.tolist()
        return stop, bool(save), end

    def _stop(self, signal: int) -> None:
        self._signal = signal
        if not self._training:  # sampling or measuring: the last state is on disk already
            raise Stopped(signal)

    # --- The folder ---

    def _open_folder(self) -> dict[str, Any]:
        """Take up the saved state, and return it; or write the first one, {} returned: a bad disk shows at once."""
        if self.is_main:
            self.folder.take()
        state = self.folder.state() if self.args.resume else None
        if state:
            self._restore(state)
            return state
        self.accelerator.wait_for_everyone()
        if self.is_main:
            if self.args.resume:
                print(f"there is nothing to resume in {str(self.folder.path)!r}: a new run begins")
            self.folder.begin(self.config)
        self.accelerator.wait_for_everyone()
        seen = self.experiment.codec.encode(self.data.images[:FITTED])
        self.experiment.process.fit(seen, lambda parts: self.progress(parts, "what averages look like"))
        self._save()
        return {}

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.trainer.load_state(state["trainer"])
            self.experiment.process.load_state_dict(state["process"])
            self.history, self.seconds = state["history"], state["seconds"]
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError):
            raise UserError(f"the state in {str(self.folder.path)!r} is not one of this run: start anew without "
                            "--resume") from None  # fmt: skip

    def _save(self) -> None:
        state = {"trainer": self.trainer.state(), "process": self.experiment.process.state_dict()}
        state |= {"history": self.history, "seconds": self.seconds, **self._budget.state()}
        if self.is_main:
            self.folder.save(state, self.history)
