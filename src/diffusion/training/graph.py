"""A training step as a CUDA graph: a small network's kernels are faster than Python can launch them one by one."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 4  # ordinary steps first: compilers, caches and the optimizer's state have to be there before recording


class Graphed:
    """`step(*inputs) -> Tensor`, recorded once its first calls are over and from then on replayed as a whole.

    Inputs keep their shapes and may be None; whatever else the step reads or changes has to stay where it is. Python
    inside runs only while recording: numbers that change come as tensors. What cannot be recorded goes on as it was.
    """

    def __init__(self, step: Callable[..., Tensor]):
        self.step, self.calls = step, 0
        self.stream = torch.cuda.Stream()
        self.graph = torch.cuda.CUDAGraph()
        self.inputs: tuple[Tensor | None, ...] = ()
        self.output = torch.empty(0)

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        self.calls += 1
        if self.calls == WARM_UP + 1:
            self._record(*inputs)
        if not self.inputs:
            return self._ordinary(*inputs)
        for kept, given in zip(self.inputs, inputs):
            if kept is not None and given is not None:
                kept.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.output.clone()

    def _ordinary(self, *inputs: Tensor | None) -> Tensor:
        """On a stream of its own, as the recording will be."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            output = self.step(*inputs)
        torch.cuda.current_stream().wait_stream(self.stream)
        return output

    def _record(self, *inputs: Tensor | None) -> None:
        kept = tuple(each if each is None else each.clone() for each in inputs)
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.output = self.step(*kept)
        except RuntimeError as error:
            warnings.warn(f"training goes on without a CUDA graph: {str(error).strip().splitlines()[0]}", stacklevel=2)
        else:
            self.inputs = kept
