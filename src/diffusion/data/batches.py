"""The order in which training goes through a data set: a function of the seed and the step."""

import hashlib
from collections.abc import Iterator
from itertools import count

import torch

from diffusion.data.datasets import Dataset
from diffusion.errors import UserError


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """How many whole batches an epoch holds (the rest is dropped); UserError if none."""
    if not 1 <= batch_size <= len(dataset):
        raise UserError(f"the batch size must be from 1 to {len(dataset)} (all of {dataset.name}), not {batch_size}")
    return len(dataset) // batch_size


def batches(
    dataset: Dataset, batch_size: int, seed: int, first_step: int = 0, rank: int = 0, world: int = 1
) -> Iterator[Dataset]:
    """The batches of steps first_step, first_step + 1, … without end; each epoch is a new permutation.

    A batch depends on (seed, step) only. `batch_size` is that of all processes together; this one (`rank` of `world`)
    gets its contiguous part. UserError if it exceeds the data set or is no multiple of `world`.
    """
    per_epoch = steps_per_epoch(dataset, batch_size)
    if batch_size % world:
        raise UserError(f"the batch size must be a multiple of the {world} processes that share it, not {batch_size}")
    first_epoch, first = divmod(first_step, per_epoch)
    for epoch in count(first_epoch):
        # Hashed, as torch drops a seed's upper half, and seed + epoch would repeat the orders of other seeds.
        mixed = int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:4])
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(mixed)).to(dataset.images.device)
        for batch in order[: per_epoch * batch_size].split(batch_size)[first:]:
            yield dataset[batch.chunk(world)[rank]]
        first = 0
