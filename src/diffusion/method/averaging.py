"""Cold diffusion by averaging: rows or columns of an image are replaced by their mean, a group of lines at a time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusion.method.mixture import Mixture
from diffusion.method.process import Draw, Process, append_dims

COMPONENTS = 64  # at most, of the mixture that prior draws from
ORDERS = ("random", "inside-out", "outside-in")


def line_order(name: str, lines: int, seed: int = 0) -> Tensor:
    """The (lines,) line numbers in the order in which they are averaged."""
    assert name in ORDERS, f"an order is one of {ORDERS}, not {name!r}"
    if name == "random":
        return torch.randperm(lines, generator=torch.Generator().manual_seed(seed))
    distance = (torch.arange(lines) - (lines - 1) / 2).abs()
    return distance.argsort(descending=name == "outside-in", stable=True)


def rank_of(order: Tensor) -> Tensor:
    """For an order (T, lines per group) of line numbers, the step (1 … T) at which each line is averaged."""
    rank = torch.empty(order.numel(), dtype=torch.long)
    rank[order.flatten()] = torch.arange(order.numel()) // order.shape[1] + 1
    return rank


class Averaging(Process):
    """At t = k/T the first k groups of lines are averaged, each to one number: the joint mean of all its lines.

    `order` (T, lines per group) holds numbers of rows or columns (`axis`). Degraded images also carry Gaussian noise of
    deviation `sigma`, which the step draws anew by `eta`; averages stay free of it. With `pinned`, the step keeps them.
    """

    timesteps: int

    def __init__(
        self, axis: str, order: Tensor, sigma: float = 0.0, eta: float = 0.0, pinned: bool = False, channels: int = 1
    ):
        super().__init__()
        self.timesteps, self.sigma, self.eta, self.pinned = len(order), sigma, eta, pinned
        self.adds_noise = sigma > 0
        self.along = {"row": -1, "col": -2}[axis]  # the dimension of an image that a line runs along
        self.rank = nn.Buffer(rank_of(order))  # (lines,) the step at which each line is averaged
        self.averages = Mixture(COMPONENTS, channels * len(order))  # of the T numbers a channel that are left at t = 1

    @property
    def is_order(self) -> bool:
        """Whether each line is in one of T groups of equal size: a rank from outside may say anything."""
        rank = torch.arange(len(self.rank), device=self.rank.device) * self.timesteps // len(self.rank) + 1
        return torch.equal(self.rank.sort().values, rank)

    @property
    def most_steps(self) -> int | None:
        return None if self.eta and self.timesteps > 1 else self.timesteps

    @property
    def has_prior(self) -> bool:
        return self.averages.fitted

    def means(self, x: Tensor) -> Tensor:
        """The joint mean of each line's group: (B, C, H, 1) for rows, (B, C, 1, W) for columns."""
        together = self.rank[:, None].eq(self.rank).to(x.dtype)  # (lines, lines)
        return (x.mean(self.along) @ (together / together.sum(1))).unsqueeze(self.along)

    def blurred(self, x_0: Tensor, t: Tensor) -> Tensor:
        """D(x_0, t) without noise."""
        step = append_dims((t * self.timesteps).round(), x_0)
        rank = self.rank[:, None] if self.along == -1 else self.rank
        return torch.where(rank <= step, self.means(x_0), x_0)

    def noisy(self, x_t: Tensor, eps: Tensor | None, scale: float = 1.0) -> Tensor:
        """x_t with `scale` times its noise, which leaves the mean of every group as it is."""
        return x_t if eps is None else x_t + scale * self.sigma * (eps - self.means(eps))

    def degrade(self, x_0: Tensor, t: Tensor, eps: Tensor | None = None) -> Tensor:
        return self.noisy(self.blurred(x_0, t), eps if self.adds_noise else None)

    def fit(self, x_0: Tensor, progress: Callable = iter) -> None:
        """Learn the distribution of the averages of training images (N, C, H, W), for `prior`."""
        groups = torch.arange(1, self.timesteps + 1, device=self.rank.device)
        first = self.rank.eq(groups[:, None]).float().argmax(1)  # (T,) one line of each group: its mean is the group's
        self.averages.fit(self.means(x_0).squeeze(self.along)[:, :, first].flatten(1), progress=progress)

    def prior(self, like: Tensor, noise: Draw = torch.randn_like) -> Tensor:
        assert self.has_prior, "fit the averages first: without, only images can be averaged and restored"
        values = self.averages.draw(like, noise).reshape(len(like), like.shape[1], -1)  # (B, C, T)
        x_1 = values[:, :, self.rank - 1].unsqueeze(self.along).expand_as(like)
        return self.noisy(x_1, noise(like) if self.adds_noise else None)

    def times(self, steps: int, *, start: float = 1.0) -> Tensor:
        """As of every process; more `steps` than groups visit the times between 1 and 0 again, evenly often.

        With a random step (eta > 0) each visit begins with a better estimate, as in the resampling of Lugmayr et al.
        (2022); with eta = 0 it would change nothing.
        """
        if start < 1 or steps <= self.timesteps or self.most_steps:
            return super().times(steps, start=start)
        between = self.timesteps - 1
        visits = between - torch.arange(steps - 1) * between // (steps - 1)  # (steps - 1,) from T - 1 down to 1
        return torch.cat([torch.tensor([self.timesteps]), visits, torch.tensor([0])]).double() / self.timesteps

    def step(self, x_t: Tensor, x_0: Tensor, t: Tensor, s: Tensor, noise: Draw = torch.randn_like) -> Tensor:
        """Bansal et al. (2022): eta 0 is Algorithm 2, which keeps x_t - D(x_0, t); eta 1 is Algorithm 1, without that.

        So Algorithm 2 keeps averages and all lines it ever filled in, right or wrong; Algorithm 1 keeps neither. Pinned
        keeps the averages alone, which are known: x_0 is shifted to have them, as in Wang et al. (2023).
        """
        if self.pinned and s > 0:  # not the last estimate: to shift it would tint what is black
            x_0 = x_0 + self.means(x_t) - self.means(x_0)
        x_s = self.blurred(x_0, s) + (1 - self.eta**2) ** 0.5 * (x_t - self.blurred(x_0, t))
        return self.noisy(x_s, noise(x_s), self.eta) if s > 0 and self.eta and self.adds_noise else x_s
