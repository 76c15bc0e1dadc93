"""Training as a generator of steps: resumable to the bit, the same on one process or many, guarded against NaN."""

import copy
from collections.abc import Callable, Iterator
from math import isfinite, nan
from typing import Any, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from diffusion.data.batches import Source, batches, steps_per_epoch
from diffusion.data.datasets import Dataset
from diffusion.errors import Failure, UserError
from diffusion.experiment.build import Experiment
from diffusion.method.codec import Latents
from diffusion.method.noise import Noise
from diffusion.training.graph import Graphed
from diffusion.training.objectives import Loss, Objective, objective_of

SYNC_EVERY = 20  # steps after which losses are read from a GPU: each time, it has to wait for the CPU
Number = float | Tensor
FITTED = 20_000  # training images that a process learns its prior from


class Diverged(Failure):
    """The loss or a gradient stopped being finite; no weight was changed by it."""


class Step(NamedTuple):
    number: int  # of optimizer steps, counted from 1, over all epochs
    loss: float  # of this step; on a GPU, of the last one that was read (every SYNC_EVERY steps, and at the end)


class HasExperiment(Protocol):
    experiment: Experiment  # as a Model has


class Trainer:
    """Trains a copy of an experiment's denoiser or autoencoder; the experiment keeps the copy's moving average (EMA).

    Random numbers are functions of (config.seed, step, place in the global batch): there is no generator to save, and
    two processes with half a batch each do what one does with all of it.
    """

    def __init__(self, experiment: Experiment | HasExperiment, data: Source, accelerator: Accelerator | None = None):
        """Without an accelerator, a single process trains where the denoiser is: on the CPU, unless it was moved.

        A model of latents may be given images, or what its codec's `posterior` made of them, which is faster.
        """
        e = experiment if isinstance(experiment, Experiment) else experiment.experiment
        self.accelerator = accelerator or Accelerator(cpu=e.device.type == "cpu")
        device = self.accelerator.device
        self.experiment, self.data, self.config, self.codec = e, data.to(device), e.config, e.codec
        self.steps_per_epoch = steps_per_epoch(data, e.config.batch_size)  # refuses a batch that cannot be filled
        self.ema: Any = e.to(device).trained.requires_grad_(False).eval()
        self.trained: Any = copy.deepcopy(self.ema).requires_grad_(True)
        self.objective: Objective = objective_of(e)
        critic: Any = self.objective.critic
        # Fused Adam takes a flag that makes it skip its step on the device itself: the guard costs no synchronization.
        weights = [{"params": list(each.parameters())} for each in (self.trained, critic) if each]
        cuda, betas = device.type == "cuda", (e.config.beta1, e.config.beta2)
        self.optimizer: Any = torch.optim.Adam(weights, lr=e.config.lr, betas=betas, fused=True, capturable=cuda)
        self.parts = {"denoiser": self.trained, "ema": self.ema, "optimizer": self.optimizer}  # of a saved state
        self.parts |= {"critic": critic} if critic else {}
        self.optimize: Callable = self._optimize
        if cuda:  # a CPU gains nothing; the compiler also turns to channels_last by itself
            for each in filter(None, (self.trained, self.ema, e.teacher, critic)):
                network: Any = each if e.config.is_codec else each.network
                network.compile()
        if cuda and self.accelerator.num_processes == 1:
            self.optimize = Graphed(self._optimize)
        self.loss = self.accelerator.prepare_model(Loss(self.objective, self.trained))
        self.losses: list[float] = []  # of every step so far, mean over processes
        self.end: int | None = None  # the step at which a training of planned length ends; lr falls towards it
        self.pending: list[Tensor] = []  # (loss, gradient norm) of the steps whose losses are not read yet
        self.bad = torch.zeros((), device=device)  # 1 from the first non-finite step on

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses) + len(self.pending)

    @property
    def lr(self) -> float:
        """The learning rate of the next step: rising over the warm-up, level, and falling where the end is planned.

        After each of the milestones, in epochs, it is multiplied by gamma.
        """
        c, end = self.config, self.end
        lr = c.lr * c.gamma ** sum(self.step >= each * self.steps_per_epoch for each in c.milestones)
        rise = (self.step + 1) / c.warmup if c.warmup else 1.0
        fall = (end - self.step) / (c.decay * end) if end and c.decay else 1.0
        return lr * max(0.0, min(1.0, rise, fall))

    def fit_prior(self, progress: Callable = iter) -> None:
        """Let the process learn its prior from training images, if it has none; `progress` may show how far it is."""
        if not self.config.is_codec and not self.experiment.process.has_prior:
            self.experiment.process.fit(self.codec.encode(self.data.whole(FITTED).images), progress)

    def train(self, until: int) -> Iterator[Step]:
        """Train up to step `until`, yielding after every step. Raises Diverged. May be left at any step."""
        self.fit_prior()
        c, rank, world = self.config, self.accelerator.process_index, self.accelerator.num_processes
        sync_every = 1 if self.accelerator.device.type == "cpu" else SYNC_EVERY
        stream = batches(self.data, c.batch_size, c.seed, self.step, rank, world)
        while self.step < until:
            batch = next(stream)
            self.pending.append(self.update(batch))
            if self.step % sync_every == 0 or self.step == until:
                self.sync_losses()
            yield Step(self.step, self.losses[-1] if self.losses else nan)

    def update(self, batch: Dataset) -> Tensor:
        """One step on a local batch; returns (loss, gradient norm) on the device."""
        data, labels = batch.images, batch.labels if self.config.conditional else None
        first = self.step * self.config.batch_size + self.accelerator.process_index * len(data)
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))  # soon leaves the random start
        if data.device.type == "cpu":
            return self.optimize(data, labels, first, self.lr, 1 - decay)
        numbers = (torch.tensor(first), torch.tensor(self.lr), torch.tensor(1 - decay))
        return self.optimize(data, labels, *(each.to(data.device, non_blocking=True) for each in numbers))

    def _optimize(self, data: Tensor, labels: Tensor | None, first: Number, lr: Number, ema_weight: Number) -> Tensor:
        """The work of `update`; on a GPU its numbers are tensors there, so that it can be recorded.

        `first` is the place of the first sample among all that are ever drawn: it decides their noise.
        """
        self.optimizer.zero_grad()
        noise = Noise(self.config.seed, first + torch.arange(len(data), device=data.device))
        loss = self.loss(*self.objective.draw(data, labels, noise))
        self.accelerator.backward(loss)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.loss.parameters() if p.grad is not None])
        self.bad.copy_(torch.maximum(self.bad, (~torch.isfinite(loss.detach() + norm)).float()))
        self.optimizer.found_inf = self.bad
        for group, pace in zip(self.optimizer.param_groups, (1, self.config.critic_pace)):
            group["lr"] = lr * pace
        self.optimizer.step()
        self._update_ema(ema_weight)
        return torch.stack([loss.detach(), norm])

    @torch.no_grad()
    def _update_ema(self, weight: Number) -> None:
        """Move the averaged weights by that part of the way to the trained ones."""
        averaged: list[Tensor] = list(self.ema.parameters())
        trained: list[Tensor] = list(self.trained.parameters())
        if isinstance(weight, float):
            torch._foreach_lerp_(averaged, trained, weight)
        else:
            ahead = torch._foreach_sub(trained, averaged)
            torch._foreach_mul_(ahead, weight)
            torch._foreach_add_(averaged, list(ahead))

    def standardise_codec(self) -> None:
        """Let the codec that is trained measure its latents over the training set: a model of them works in those."""
        if isinstance(self.codec, Latents) and self.config.is_codec:
            self.codec.fit(self.codec.posterior(self.data.whole().images))

    def sync_losses(self) -> None:
        """Bring the pending losses to the CPU, averaged over the processes; raise Diverged if one is not finite."""
        if not self.pending:
            return
        for loss, norm in self.accelerator.reduce(torch.stack(self.pending), "mean").tolist():
            if not (isfinite(loss) and isfinite(norm)):
                what = f"step {len(self.losses) + 1}: the loss is {loss:g} and the gradient norm {norm:g}"
                hint = "the step was not taken. A smaller lr or fp32 precision may help."
                raise Diverged(f"{what} at lr {self.config.lr:g}; {hint}")
            self.losses.append(loss)
        self.pending.clear()

    def state(self) -> dict[str, Any]:
        """All that the rest of the training depends on: plain tensors and values, for files.save."""
        self.sync_losses()
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        read = gather_object([self.data.position()])  # of every process; most sources have nothing to say
        parts |= {"position": read} if any(read) else {}
        return parts | {"losses": torch.tensor(self.losses, dtype=torch.float64), "end": self.end}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.losses, self.end = state["losses"].tolist(), state.get("end")
        if read := state.get("position"):
            if len(read) != self.accelerator.num_processes:
                raise UserError(f"these data can only be resumed with {len(read)} processes, as the run was begun")
            self.data.seek(read[self.accelerator.process_index])
        self.pending.clear()
