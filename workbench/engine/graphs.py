"""CUDA graphs: all kernels of a small function launched as one, where launching them one by one takes longer than running them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor
from torch.cuda import _POOL_HANDLE

from workbench.engine import device

POSSIBLE = device.CUDA


class Recorder:
    """A function of a key and of tensors of this rank's device, recorded at its second call with a key and these shapes, and replayed from then on.

    The function may read and write other tensors, as long as they stay where they are (`bound_to`), and must not wait for the device. What it
    gives is overwritten by the next call.
    """

    def __init__(self, function: Callable[..., Tensor]):
        self._function = function
        self._recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, Sequence[Tensor], Tensor] | None] = {}
        self._bound: Sequence[int] = ()
        self._pool: _POOL_HANDLE | None = None

    def __call__(self, key: Hashable, *inputs: Tensor) -> Tensor:
        name = (key, *(each.shape for each in inputs))
        if name not in self._recorded:  # what is called once is not worth recording, and the first call makes the libraries ready
            self._recorded[name] = None
            return self._function(key, *inputs)
        recorded = self._recorded[name] = self._recorded[name] or self._record(key, inputs)
        graph, places, output = recorded
        for buffer, each in zip(places, inputs, strict=True):
            buffer.copy_(each)
        graph.replay()
        return output

    def bound_to(self, tensors: Sequence[Tensor]) -> None:
        """What the function reads and writes besides its inputs: where one has moved, nothing recorded is right any more."""
        bound = [tensor.data_ptr() for tensor in tensors]
        if bound != self._bound:
            self.forget()
            self._bound = bound

    def forget(self) -> None:
        """Give the memory of all recordings back."""
        self._recorded.clear()
        self._pool = None

    def _record(self, key: Hashable, inputs: Sequence[Tensor]) -> tuple[torch.cuda.CUDAGraph, Sequence[Tensor], Tensor]:
        places = [each.clone() for each in inputs]
        graph = torch.cuda.CUDAGraph()
        # Another thread may train meanwhile: what it does with the GPU is none of the recording's business.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = self._function(key, *places)
        self._pool = graph.pool()
        return graph, places, output
