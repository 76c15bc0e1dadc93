"""Training as a generator of steps: resumable to the bit, the same on one process or many, guarded against NaN."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from diffusion.data.batches import batches, steps_per_epoch
from diffusion.data.datasets import Dataset
from diffusion.errors import Failure
from diffusion.experiment.config import Config
from diffusion.method.codec import Pixels
from diffusion.method.denoiser import Denoiser
from diffusion.method.noise import Noise
from diffusion.method.process import Process

SYNC_EVERY = 20  # steps between two looks at the device: each one would make a GPU wait for the CPU


class Diverged(Failure):
    """The loss or a gradient stopped being finite; no weight was touched by it."""


class Step(NamedTuple):
    """One optimizer step. `loss` is fresh every SYNC_EVERY steps (and at the end), otherwise the last one looked at."""

    number: int  # counted from 1, over all epochs
    loss: float


class Loss(nn.Module):
    """A denoiser whose forward is its loss: what data-parallel wrappers can hook into."""

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x_0: Tensor, eps: Tensor, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.denoiser.loss(x_0, eps, x_t, t, cond)


class Trainer:
    """Trains a denoiser and keeps its moving average. Its `state` is all that the rest of the training depends on.

    Every random number is a function of (config.seed, step, place in the global batch), so there is no generator to
    save, and two processes with half a batch each do what one does with the whole.
    """

    def __init__(self, denoiser: Denoiser, process: Process, codec: Pixels, data: Dataset, config: Config,
                 accelerator: Accelerator):  # fmt: skip
        self.process, self.codec, self.data, self.config, self.accelerator = process, codec, data, config, accelerator
        self.steps_per_epoch = steps_per_epoch(data, config.batch_size)  # refuses a batch that cannot be filled
        self.denoiser = denoiser.to(accelerator.device)
        self.ema = copy.deepcopy(self.denoiser).requires_grad_(False).eval()
        # Fused Adam takes a flag that makes it skip its step on the device itself: the guard costs no synchronization.
        betas = (0.9, config.beta2)
        self.optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=config.lr, betas=betas, fused=True)
        if accelerator.device.type == "cuda":  # a CPU gains nothing; the compiler also turns to channels_last by itself
            self.denoiser.network.compile()
            self.ema.network.compile()
        self.loss = accelerator.prepare_model(Loss(self.denoiser))
        self.losses: list[float] = []  # of every step so far, mean over processes
        self.end: int | None = None  # the step at which a training of planned length ends; lr falls towards it
        self.pending: list[Tensor] = []  # (loss, gradient norm) of the steps not yet looked at
        self.bad = torch.zeros((), device=accelerator.device)  # 1 from the first non-finite step on

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses) + len(self.pending)

    @property
    def lr(self) -> float:
        """The learning rate of the next step: risen over the warm-up, level, and falling where the end is planned."""
        rise = (self.step + 1) / self.config.warmup if self.config.warmup else 1.0
        last = self.config.decay * self.end if self.end else 0.0
        fall = (self.end - self.step) / last if last else 1.0
        return self.config.lr * max(0.0, min(1.0, rise, fall))

    def train(self, until: int) -> Iterator[Step]:
        """Train up to step `until`, yielding after every step. Raises Diverged. May be left at any step."""
        look_every = 1 if self.accelerator.device.type == "cpu" else SYNC_EVERY
        stream = self.batches()
        while self.step < until:
            batch = next(stream)
            labels = batch.labels if self.config.classes else None
            self.pending.append(self.update(self.codec.encode(batch.images), labels))
            if self.step % look_every == 0 or self.step == until:
                self.look()
            yield Step(self.step, self.losses[-1] if self.losses else float("nan"))

    def batches(self) -> Iterator:
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        return batches(self.data, self.config.batch_size, self.config.seed, self.step, rank, world)

    def update(self, x_0: Tensor, cond: Tensor | None = None) -> Tensor:
        """One step on a local batch (B, C, H, W) and its conditions; returns (loss, gradient norm) on the device."""
        first = self.step * self.config.batch_size + self.accelerator.process_index * len(x_0)
        noise = Noise(self.config.seed, torch.arange(first, first + len(x_0), device=x_0.device))
        t = self.process.draw_time(noise)
        eps = noise(x_0) if self.process.adds_noise else torch.zeros_like(x_0)
        x_t = self.process.degrade(x_0, t, eps)
        if cond is not None:
            hidden = noise.uniform() <= self.config.drop_prob
            cond = torch.where(hidden, self.denoiser.null(cond), cond)
        loss = self.loss(x_0, eps, x_t, t, cond)
        self.accelerator.backward(loss)
        parameters = list(self.denoiser.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        self.bad = torch.maximum(self.bad, (~torch.isfinite(loss.detach() + norm)).float())
        self.optimizer.found_inf = self.bad
        self.optimizer.param_groups[0]["lr"] = self.lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average()
        return torch.stack([loss.detach(), norm])

    @torch.no_grad()
    def average(self) -> None:
        """Move the averaged weights; the warm-up lets them leave the random start quickly."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.denoiser.parameters()), 1 - decay)

    def look(self) -> None:
        """Bring the pending losses to the CPU, averaged over the processes; raise Diverged if one is not finite."""
        if not self.pending:
            return
        values = self.accelerator.reduce(torch.stack(self.pending), "mean").cpu()  # (steps, 2)
        for loss, norm in values.tolist():
            if not (abs(loss) < float("inf") and abs(norm) < float("inf")):
                raise Diverged(
                    f"step {len(self.losses) + 1}: the loss is {loss:g} and the gradient norm {norm:g} at lr "
                    f"{self.config.lr:g}; the step was not taken. A smaller lr or fp32 precision may help."
                )
            self.losses.append(loss)
        self.pending.clear()

    def state(self) -> dict[str, Any]:
        """Plain tensors and values, for files.save."""
        self.look()
        return {
            "denoiser": self.denoiser.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "end": self.end,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.denoiser.load_state_dict(state["denoiser"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses = state["losses"].tolist()
        self.end = state.get("end")
        self.pending.clear()
