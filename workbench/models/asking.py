"""Requests to servers while answers are still being sampled: sent as answers finish, collected when all have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np

from workbench.models import messages
from workbench.models.endpoint import Arrays
from workbench.models.protocol import Transport
from workbench.rollout.experience import Experience

T = TypeVar("T")


class Asked:
    """Requests under way, with the experiences that each is about, by their step. One thread may add while another collects."""

    def __init__(self) -> None:
        self._pending: defaultdict[int, list[tuple[Sequence[Experience], Future[Arrays]]]] = defaultdict(list)

    def add(self, experiences: Sequence[Experience], answer: Future[Arrays]) -> None:
        self._pending[experiences[0].step].append((list(experiences), answer))

    def collect(self, step: int, take: Callable[[Experience, Arrays, int], T]) -> dict[tuple[int, int], T]:
        """Wait for all ranks' answers about a step: what `take` makes of each experience, by its prompt and sample, on every rank."""
        from workbench.engine import parallel

        asked_of_step = self._pending.pop(step, [])
        mine = {(e.prompt_index, e.sample): take(e, future.result(), i) for asked, future in asked_of_step for i, e in enumerate(asked)}
        return {key: value for part in parallel.gather_over_all(mine) for key, value in part.items()}


class ByToken:
    """A `Role` behind a server of which one endpoint gives one value for each token: `output` of the answer is the experience's `name`."""

    def __init__(self, transport: Transport, endpoint: str, output: str, name: str):
        self.transport: Transport | None = transport
        self._call, self._endpoint, self._output, self._name = transport.call, endpoint, output, name
        self._asked = Asked()

    def begin(self, experiences: Sequence[Experience]) -> None:
        if any(e.kept is not None for e in experiences):
            raise ValueError(
                f"{self._endpoint} cannot be told which tokens top_k and top_p kept: set algorithm.logprobs_of=policy, or do not serve it"
            )
        if experiences:
            self._asked.add(experiences, self._call(self._endpoint, **messages.request(experiences)))

    def fill(self, experiences: Sequence[Experience]) -> None:
        def own(e: Experience, answer: Arrays, i: int) -> np.ndarray:
            start = len(e.row.prefix)
            return np.array(answer[self._output][i, start : start + len(e.tokens)])

        answers = self._asked.collect(experiences[0].step, own)
        for e in experiences:
            e.put(self._name, answers[e.prompt_index, e.sample])
