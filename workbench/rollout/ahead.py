"""Asynchronous rollouts: while the policy learns from one step, a thread samples the next steps' answers from a copy of the weights."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Protocol

from workbench.engine import device
from workbench.rollout.base import Sampling
from workbench.rollout.experience import Experience

Over = Callable[[], bool]


class Sample(Protocol):
    """This rank's answers for `step` (from 0). It takes no more prompts once `over()` is true."""

    def __call__(self, step: int, sampling: Sampling, over: Over) -> list[Experience]: ...


class Ahead:
    """Answers for up to `steps` steps beyond the one that learns. All ranks make the same calls.

    Every `steps` steps the sampler takes over the policy's weights (`refit`) and samples the answers of the `steps` steps that follow: those
    of step t come from weights that lack at most `steps` updates, and which ones is a function of t and of where the run began or was resumed
    from, not of anyone's speed (one step off, for `steps` 1: Noukhovitch et al., arXiv 2410.18252).
    """

    def __init__(self, steps: int, total_steps: int, refit: Callable[[int], None], sampling: Callable[[], Sampling], sample: Sample):
        self._steps, self._total_steps, self._refit, self._sampling, self._sample = steps, total_steps, refit, sampling, sample
        self._rollouts: dict[int, Future[list[Experience]]] = {}
        self._wanted: SimpleQueue[tuple[int, Sampling, Future[list[Experience]]] | None] = SimpleQueue()
        self._over = threading.Event()
        # A daemon: a rank that fails must end, even if its sampler waits for ranks that are no more.
        self._thread = threading.Thread(target=self._work, name="sampler", daemon=True)
        self._thread.start()

    def take(self, step: int) -> list[Experience]:
        """This rank's answers for the step that comes now. Raises what the sampling raised."""
        if step not in self._rollouts:
            self._refit(step)
            self._ask(step)
        experiences = self._rollouts.pop(step).result()
        if not self._rollouts:
            self._refit(step)
            for later in range(step + 1, min(step + self._steps, self._total_steps - 1) + 1):
                self._ask(later)
        return experiences

    def wait(self) -> None:
        """Until the sampler has nothing to do, so that its engine may be used for something else. Raises what the sampling raised."""
        for future in self._rollouts.values():
            future.result()

    def close(self) -> None:
        """No more prompts are taken; the answers under way are waited for."""
        self._over.set()
        self._wanted.put(None)
        self._thread.join()

    def _ask(self, step: int) -> None:
        self._rollouts[step] = Future()
        self._wanted.put((step, self._sampling(), self._rollouts[step]))  # as it is now on every rank, whenever the thread comes to it

    def _work(self) -> None:
        with device.beside():
            while (wanted := self._wanted.get()) is not None:
                step, sampling, future = wanted
                try:
                    future.set_result(self._sample(step, sampling, self._over.is_set))
                except BaseException as error:
                    future.set_exception(error)
