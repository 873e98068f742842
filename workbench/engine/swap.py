"""Several models on one accelerator, of which one computes at a time: the others' weights lie in host memory meanwhile.

As NeMo-Aligner's critic and reward model share their GPUs (Shen et al., arXiv 2405.01481). A model that learns takes its optimizer's state
along; the gradients' buffers are given back, for each update begins with empty ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from workbench.engine import device
from workbench.engine.step import Policy


class Models(Protocol):
    """What has models. `constant`: their weights stay as they are."""

    constant: bool


T = TypeVar("T", bound=Models)


class Stage:
    """Which of several models is on the accelerator. Every rank has one, and makes the same calls."""

    def __init__(self) -> None:
        self.here: str | None = None
        self.swaps, self.seconds, self.bytes_away = 0, 0.0, 0
        self._models: dict[str, Callable[[], Sequence[Policy]]] = {}
        self._copies: dict[str, list[tuple[Policy, device.HostCopy]]] = {}
        self._constant: set[str] = set()

    def build(self, name: str, make: Callable[[], T], models: Callable[[T], Sequence[Policy]]) -> T:
        """Make something of which `models` gives the models, on an accelerator that the others have left."""
        self._leave()
        made = make()
        self._models[name], self.here = lambda: models(made), name
        if made.constant:
            self._constant.add(name)
        return made

    def enter(self, name: str) -> None:
        """The models of `name` are on the accelerator afterwards, the others in host memory."""
        if self.here == name:
            return
        started = time.perf_counter()
        self._leave()
        for _, copy in self._copies[name]:
            copy.enter()
        self.here = name
        self.swaps += 1
        self.seconds += time.perf_counter() - started

    def _leave(self) -> None:
        if self.here is None:
            return
        known = dict(self._copies.get(self.here, ()))
        leaving = [(model, known.get(model) or device.HostCopy(self.here in self._constant)) for model in self._models[self.here]()]
        self.bytes_away = sum(copy.leave(*model.memory()) for model, copy in leaving)
        self._copies[self.here] = leaving
        self.here = None
