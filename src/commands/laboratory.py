"""The engine of every training command: one run, its folder, and a loop over epochs that survives being killed."""

import argparse
import json
import math
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors
from tqdm import tqdm

from commands.options import directory, number, one_of
from commands.processes import hold, open_accelerator
from commands.stopping import Stopped
from diffusion import checkpoint, figures
from diffusion.config import Config, checked
from diffusion.data import DATASETS, load
from diffusion.errors import UserError, unknown
from diffusion.experiment import Experiment, build, save_weights
from diffusion.generation import degraded, samples, sampling
from diffusion.metrics import Scores
from diffusion.precision import computes_bf16
from diffusion.recipe import NAMED, Plan
from diffusion.training import LOOK_EVERY, Trainer

FITTED = 20_000  # training images that a process learns its prior from
# The settings that options may change.
RECIPE = ("lr", "batch_size", "precision", "seed", "axis", "order", "noise", "loss")


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """What is common to everything that trains."""
    group = parser.add_argument_group("training")
    group.add_argument("--dataset", type=one_of("dataset", DATASETS), default="MNIST", help=", ".join(DATASETS))
    group.add_argument("--data-root", type=directory, default=Path("data"), help="where data sets are kept")
    group.add_argument("--out", type=directory, default=Path("."), help="where runs/, Plots/ and contents/ are made")
    group.add_argument("--seed", type=number(int, 0), help="of weights, order and noise (default: 0)")
    group.add_argument("--lr", type=number(float, 1e-9), help="learning rate (default: the preset's)")
    group.add_argument("--batch-size", type=number(int, 1), help="of all processes together (default: 128)")
    group.add_argument("--precision", type=one_of("precision", ["bf16", "fp32"]),
                       help="of the network (default: bf16 where the processor computes in it)")  # fmt: skip
    group.add_argument("--device", type=one_of("device", ["auto", "cpu", "cuda"]), default="auto",
                       help="auto is the GPU if there is one")  # fmt: skip
    group.add_argument("--resume", action="store_true", help="continue this run from its last saved state")
    group.add_argument("--limit-steps", type=number(int, 1), help="end the training after this many steps in all")
    group.add_argument("--save-every", type=number(float, 0), default=60, help="seconds between saves in an epoch")


def coursework_names(config: Config) -> tuple[str, str]:
    """The coursework's name for the run of a preset, and for its weight files by {dataset} and {epoch}."""
    if config.process == "averaging":
        name = f"{config.axis}_{config.preset}"
        return f"custom_{name}", f"custom_{{dataset}}_{{epoch}}_{name}.pth"
    return f"DDPM_{config.preset}", f"ddpm_{{dataset}}_{{epoch}}_{config.preset}.pth"


class Laboratory:
    """A run of a Config: trains epoch by epoch, keeps state, weights and scores in runs/{name}/."""

    def __init__(self, base: Config, args: argparse.Namespace, name: str, weights: str,
                 told: Collection[str] = ()):  # fmt: skip
        """`name` is the run's; `weights` names a weight file by {dataset} and {epoch}.

        Of the settings of `base`, a resumed run insists on those that were `told` (by a file, an override).
        """
        self.accelerator = open_accelerator(args.device)
        self.args, self._told, self.began = args, told, time.monotonic()
        dataset = args.dataset or base.dataset
        self.name = name if dataset == base.dataset else f"{name}_{dataset}"
        self.weights = weights.replace("{dataset}", dataset.lower())
        self.folder: Path = args.out / "runs" / self.name
        self.config = self._resolve(base)
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
        self._minutes: float | None = None  # of training; when the lr has to fall, they decide at which step it ends
        self._settled = False  # whether they have
        self._planned: float | None = None  # minutes, of the run that is resumed
        self._first: tuple[float, int] | None = None  # seconds and steps after this session's first step, a slow one

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
        self._catch_signals()
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
        self._open_folder()
        self._catch_signals()
        per_epoch, trainer = self.trainer.steps_per_epoch, self.trainer
        self._minutes, limit = plan.minutes, self.args.limit_steps or math.inf
        end = min(plan.steps or math.inf, plan.epochs * per_epoch if plan.epochs else math.inf)
        end = None if end == math.inf else max(1, round(end))
        if trainer.end and end and end < trainer.end:
            raise UserError(f"the run in {str(self.folder)!r} was planned to end at step {trainer.end:,}, not {end:,}, "
                            "and its learning rate falls towards that: ask for no less, or start anew")  # fmt: skip
        longer = bool(trainer.end) and self._is_longer(plan, end)
        if longer and end != trainer.end:
            if self.is_main:
                print(f"the run, planned to end at step {trainer.end:,}, is extended")
            trainer.end = None
        trainer.end = trainer.end or end
        self._settled = bool(plan.minutes) and self._settled and not longer
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
            path = self.folder / self.weights.format(epoch=epoch)
            self.written.append(save_weights(path, self.averaged, **about))
        self._save()

    # --- Sample ---

    def check_sampling(self, **how: Any) -> None:
        """Raise UserError for impossible options now, not after an hour of training."""
        sampling(self.experiment, **how)

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
        with self.bar(len(index) * len(sampling(experiment, **how).times), text, unit="step") as bar:
            return samples(experiment, index, seed, tick=bar.update, **told, **how)

    def degraded(self, images: Tensor, t: float | Tensor) -> Tensor:
        """Images (B, C, H, W), uint8 or in [0, 1], degraded to times t, one or (B,); back in [0, 1]."""
        return degraded(self.experiment, images, torch.as_tensor(t))

    def gather(self, share: Tensor) -> Tensor:
        """The shares (n, …) of all processes, in order."""
        return torch.cat(gather_all_tensors(share)) if self.accelerator.num_processes > 1 else share

    # --- Show ---

    def bar(self, total: int, text: str, **kwargs: Any) -> tqdm:
        return tqdm(total=total, desc=text, disable=not self.is_main, leave=False, dynamic_ncols=True, **kwargs)

    def progress(self, parts: Sequence[Tensor], text: str) -> Iterator[Tensor]:
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
        for path in [*(self.folder / name for name in ("state.pt", "metrics.jsonl", "config.json")), *self.written]:
            folders.setdefault(path.parent, {})[path.name] = None
        for folder, names in folders.items():
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            print(f"  {folder}/: {', '.join([*names][:6])}{more}")

    # --- Training, kept alive ---

    def _train(self, until: int, text: str) -> None:
        """Train up to a step, or to where `_minutes` make the end of the training known."""
        began = saved = time.monotonic()
        self._training = True
        limit = self.args.limit_steps or math.inf
        total = min(self.trainer.end or (math.inf if self._minutes else until), limit)
        known = total if total < math.inf else None
        with self.bar(known, text, initial=self.trainer.step, unit="step") as bar:
            for step in self.trainer.train(until):
                passed = self.seconds + time.monotonic() - began
                if step.number % LOOK_EVERY == 0:
                    bar.set_postfix(loss=f"{step.loss:.4f}", refresh=False)
                    if self._minutes and not self.trainer.end:
                        bar.total = min(round(step.number * 60 * self._minutes / passed), limit)  # for tqdm's ETA
                bar.update(1)
                self._first = self._first or (passed, step.number)
                due = time.monotonic() - saved >= self.args.save_every
                promised = 0 if self._settled else self._promised(passed, step.number)
                stop, save, end = self._agree(step.number, due, promised)
                self._settled = self._settled or end > 0
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

    def _promised(self, passed: float, step: int) -> int:
        """The step at which `_minutes` of training will be over, once the lr has to fall towards it; until then 0."""
        seconds = 60 * (self._minutes or math.inf)
        if passed >= seconds:
            return step
        before, first = self._first
        if passed < seconds * (1 - self.config.decay) or step == first:
            return 0
        return step + round((seconds - passed) * (step - first) / (passed - before))

    def _is_longer(self, plan: Plan, end: int | None) -> bool:
        """Whether a plan that ends at that step goes on where the restored one ends."""
        if plan.minutes and self._planned:
            return plan.minutes > self._planned
        if plan.minutes:
            return self.seconds < 60 * plan.minutes * (1 - self.config.decay)
        return end is not None and end > self.trainer.end

    def _agree(self, step: int, save: bool, end: int) -> tuple[int, bool, int]:
        """The signal, the wish to save and the promised end of any process, known to all at the same step."""
        if self.accelerator.num_processes == 1:
            return self._signal, save, end
        if step % LOOK_EVERY:
            return 0, False, 0
        wishes = self.accelerator.gather(torch.tensor([[self._signal, int(save), end]], device=self.device))
        stop, save, end = wishes.max(0).values.tolist()
        return stop, bool(save), end

    def _catch_signals(self) -> None:
        for number_ in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number_, self._on_signal)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup's wish
            signal.signal(signal.SIGHUP, self._on_signal)

    def _on_signal(self, number_: int, frame: object) -> None:
        self._signal = number_
        if not self._training:  # sampling or measuring: the last state is on disk already
            raise Stopped(number_)

    # --- The folder ---

    def _resolve(self, base: Config) -> Config:
        """The preset with the options given; on --resume the saved config, which given options may not contradict."""
        given = {key: getattr(self.args, key) for key in RECIPE if getattr(self.args, key, None) is not None}
        if self.args.dataset:
            given |= {"dataset": self.args.dataset}
        config = base.replace(**given)
        if config.dataset not in DATASETS:
            raise unknown("dataset", config.dataset, DATASETS)
        shape = DATASETS[config.dataset].shape
        if "shape" in self._told and config.shape != shape:
            raise UserError(f"the images of {config.dataset} have the shape {shape}, not {config.shape}")
        config = config.replace(shape=shape)
        if config.precision == "auto":
            config = config.replace(precision="bf16" if computes_bf16(self.device) else "fp32")
        path = self.folder / "config.json"
        if not (self.args.resume and path.exists()):
            return config
        try:
            saved = checked(json.loads(path.read_text()))
        except UserError as error:
            raise UserError(f"{str(path)!r} is damaged, {error}: start anew without --resume") from None
        except ValueError:
            raise UserError(f"{str(path)!r} is damaged: start anew without --resume") from None
        for key in (*given, *self._told):
            if getattr(saved, key) != getattr(config, key):
                name = key if key in given else NAMED[key]
                raise UserError(
                    f"the run in {str(self.folder)!r} was made with {name} {getattr(saved, key)}, not "
                    f"{getattr(config, key)}: leave the option out, or start anew without --resume"
                )
        others = [key for key, value in asdict(saved).items() if value != asdict(config)[key] and key != "precision"]
        if others and self.is_main:
            kept = ", ".join(f"{key} {getattr(saved, key)}" for key in others)
            print(f"the run goes on as it was begun, with {kept}")
        return saved

    def _open_folder(self) -> None:
        """Take up the saved state, or put an earlier run aside and write the first state: a bad disk shows at once."""
        state = self.folder / "state.pt"
        if self.is_main and not hold(self.folder.with_name(f".{self.folder.name}.lock")):
            raise UserError(f"another process is training in {str(self.folder)!r}: wait, or choose another --out")
        if self.is_main:
            for stale in self.folder.glob(".*.tmp"):  # of a save that was killed
                stale.unlink()
        if self.args.resume and state.exists():
            self._restore(checkpoint.load(state))
            return
        self.accelerator.wait_for_everyone()
        if self.is_main:
            if self.args.resume:
                print(f"there is nothing to resume in {str(self.folder)!r}: a new run begins")
            if state.exists() or any(self.folder.glob("*.pth")):
                aside = checkpoint.put_aside(self.folder)
                print(f"the earlier run is kept in {aside}; its pictures give way to the new run's")
            text = json.dumps(asdict(self.config), indent=2) + "\n"
            checkpoint.write_atomically(self.folder / "config.json", lambda file: file.write(text.encode()))
        self.accelerator.wait_for_everyone()
        self.experiment.process.fit(self.experiment.codec.encode(self.data.images[:FITTED]))
        self._save()

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.trainer.load_state(state["trainer"])
            self.experiment.process.load_state_dict(state["process"])
            self.history, self.seconds = state["history"], state["seconds"]
            self._planned, self._settled = state.get("minutes"), state.get("settled", False)
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError):
            raise UserError(f"the state in {str(self.folder)!r} is not one of this run: start anew without --resume"
                            ) from None  # fmt: skip

    def _save(self) -> None:
        state = {"trainer": self.trainer.state(), "history": self.history, "seconds": self.seconds}
        state |= {"minutes": self._minutes and max(self._minutes, self._planned or 0), "settled": self._settled}
        state["process"] = self.experiment.process.state_dict()
        if self.is_main:
            checkpoint.save(self.folder / "state.pt", state)
            lines = "".join(json.dumps(line) + "\n" for line in self.history)
            checkpoint.write_atomically(self.folder / "metrics.jsonl", lambda file: file.write(lines.encode()))
