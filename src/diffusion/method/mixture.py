"""A Gaussian mixture: the distribution of the few numbers that are left of an image when all of it is averaged."""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Mixture(nn.Module):
    """A mixture of `components` Gaussians in `dim` dimensions; not fitted until `fit` or a loaded state."""

    def __init__(self, components: int, dim: int):
        super().__init__()
        self.weights = nn.Buffer(torch.zeros(components))  # all 0: not fitted
        self.means = nn.Buffer(torch.zeros(components, dim))
        self.roots = nn.Buffer(torch.zeros(components, dim, dim))  # each covariance is root @ root.T

    @property
    def fitted(self) -> bool:
        return bool(self.weights.any())

    def fit(self, values: Tensor, seed: int = 0, progress: Callable = iter) -> list[tuple[int, float]]:
        """Fit to values (N, dim) by as many components, up to ours, as give a held-out tenth the best likelihood.

        Returns (components, mean held-out log-likelihood in nats) of each number tried; `progress` may show how far.
        """
        from sklearn.exceptions import ConvergenceWarning  # here, as drawing from a saved mixture needs neither
        from sklearn.mixture import GaussianMixture

        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
        held_out, others = values.double().cpu()[order].tensor_split([max(1, len(values) // 10)])
        most, tried = min(len(self.weights), len(others)), {}
        settings = {"reg_covar": 1e-5, "max_iter": 60, "random_state": seed, "init_params": "k-means++"}
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # a little short of it is enough
            for k in progress(sorted({1, most // 8, most // 3, most} - {0})):
                tried[k] = GaussianMixture(k, **settings).fit(others)
        scores = {k: float(mixture.score(held_out)) for k, mixture in tried.items()}
        best = max(scores, key=scores.__getitem__)
        self.weights.zero_()[:best] = torch.from_numpy(tried[best].weights_)
        self.means.zero_()[:best] = torch.from_numpy(tried[best].means_)
        self.roots.zero_()[:best] = torch.linalg.cholesky(torch.from_numpy(tried[best].covariances_))
        return sorted(scores.items())

    def draw(self, like: Tensor, noise: Callable[[Tensor], Tensor]) -> Tensor:
        """Draws (B, dim) of the dtype of `like` (B, …), made of the standard normal numbers that `noise` gives."""
        z = noise(like.new_empty(len(like), 1 + self.means.shape[1]))
        chance = (1 + torch.erf(z[:, :1] / math.sqrt(2))) / 2  # uniform, (B, 1)
        edges = self.weights.cumsum(0) / self.weights.sum()
        pick = (chance > edges[:-1]).sum(1)
        return self.means[pick] + torch.einsum("bij,bj->bi", self.roots[pick], z[:, 1:])
