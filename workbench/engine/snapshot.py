"""The trained weights as they were at a moment: a reference that can be moved up to the policy.

Of full fine-tuning these are all weights, in host memory as NeMo-Aligner keeps its reference (Shen et al., arXiv 2405.01481); of LoRA they are a
second, frozen adapter on the same base. They take the policy's place while the reference computes, one tensor at a time, and give it back.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from workbench.engine import device, parallel
from workbench.engine.model import PackedGPT, named_parameters


class Snapshot:
    """This rank's part of it. `version` counts how often it was moved up; at 0 it is the policy's first weights."""

    def __init__(self, chunks: Sequence[PackedGPT]):
        self._chunks = chunks
        self.version = 0
        self.tensors: dict[str, Tensor] = {name: device.to_host(parameter.detach()) for name, parameter in self._trained()}

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, parameter) for name, parameter in named_parameters(self._chunks) if parameter.requires_grad)

    @torch.no_grad()
    def advance(self) -> None:
        """From now on it is the policy as it is now, whose weights are settled."""
        for name, parameter in self._trained():
            self.tensors[name].copy_(parameter)
        self.version += 1

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within: the policy's modules compute with these weights. The policy's own come back to the bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self._trained():
            own = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(own)

    def digest(self) -> str:
        """Names the weights, of all ranks together; the same on each. Another layout names the same weights otherwise."""
        hasher = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            hasher.update(name.encode())
            hasher.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        whole = hashlib.sha256("".join(parallel.gather_over_all(hasher.hexdigest())).encode())
        return whole.hexdigest()[:16]
