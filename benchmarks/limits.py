"""What a machine can do at most: a large matrix product, and the convolutions of a network, each alone.

A rate is in operations a second (a multiplication and its addition are two), in the memory format that is faster.
"""

import statistics
import time
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.precision import computes_bf16

LAYOUTS = (torch.contiguous_format, torch.channels_last)
ROUNDS = 5


def precisions(device: torch.device) -> dict[str, torch.dtype]:
    """Those that a processor has units for, the fastest first."""
    return {"bf16": torch.bfloat16, "fp32": torch.float32} if computes_bf16(device) else {"fp32": torch.float32}


def clock(device: torch.device) -> float:
    """Seconds; of a single CPU thread those in which it ran: what else runs on the machine takes none of them."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.thread_time() if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()


def seconds(work, device: torch.device) -> float:
    """How long a call takes."""
    began = clock(device)
    work()
    return clock(device) - began


def fastest(work, device: torch.device) -> float:
    work()
    return statistics.median(seconds(work, device) for _ in range(ROUNDS))


def matrix_product(dtype: torch.dtype, device: torch.device) -> float:
    """The rate of a product of two square matrices."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / fastest(lambda: a @ b, device)


def inputs_of(network: nn.Module, *inputs: Tensor | None) -> list[tuple[nn.Conv2d, Tensor]]:
    """The network's convolutions larger than 1×1, with what each is given in a call."""
    found: list[tuple[nn.Conv2d, Tensor]] = []
    large = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
    hooks = [m.register_forward_hook(lambda m, given, _: found.append((m, given[0].detach()))) for m in large]
    with torch.no_grad():
        network(*inputs)
    for hook in hooks:
        hook.remove()
    return found


class Limit(NamedTuple):
    operations: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.operations / self.seconds


def convolutions(network: nn.Module, dtype: torch.dtype, *inputs: Tensor | None, training: bool = False) -> Limit:
    """The network's convolutions in a call, one after the other; in training, with their gradients."""
    found, given = [], inputs_of(network, *inputs)
    for layout in LAYOUTS:
        operations, total = 0, 0.0
        for place, (conv, x) in enumerate(given):
            x, weight, bias = (each.detach().to(dtype) for each in (x, conv.weight, conv.bias))
            x, weight = (each.contiguous(memory_format=layout) for each in (x, weight))
            wanted = [weight, bias, *([x] if place else [])] if training else []  # no gradient of the images
            for each in wanted:
                each.requires_grad_()

            def run(conv=conv, x=x, weight=weight, bias=bias, wanted=wanted):
                y = F.conv2d(x, weight, bias, conv.stride, conv.padding)
                return torch.autograd.grad(y, wanted, torch.ones_like(y)) if wanted else y

            passes = 1 + training * (1 + bool(place))
            operations += passes * 2 * F.conv2d(x, weight, bias, conv.stride, conv.padding).numel() * weight[0].numel()
            total += fastest(run, x.device)
        found.append(Limit(operations, total))
    return min(found, key=lambda limit: limit.seconds)
