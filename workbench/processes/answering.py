"""Answers that are learnt from without a reward: sampled by weights that stand still meanwhile, and kept in the run's rollout files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from workbench.algorithms import Answer
from workbench.data.packing import Row
from workbench.engine import parallel
from workbench.engine.batch import Metrics
from workbench.engine.step import Policy
from workbench.processes.phases import PhaseTimes
from workbench.processes.rank import Rank
from workbench.processes.sampling import Sampler, in_order, sampling_of
from workbench.rollout.base import Drawn
from workbench.rollout.experience import Experience
from workbench.rundir import rollouts


class Answering:
    """The policy's engine on one rank, for answers drawn as `drawn` says. All ranks make the same calls, and have all answers."""

    def __init__(self, rank: Rank, policy: Policy, drawn: Drawn):
        self._rank, self._drawn = rank, drawn
        self._times = PhaseTimes()
        self._sampler = Sampler(rank.spec, policy, rank.directory, rank.tokenizer, self._times)

    def sampled(self, rows: Sequence[Row], step: int, seed: int, version: int) -> list[Experience]:
        """One answer to each row's prompt for a step (from 1; 0: for none), by the weights that are in place: those with the number `version`."""
        self._sampler.refit(version)
        sampling = sampling_of(self._drawn, self._rank.end_tokens)
        with self._times.timed("generate"):
            mine = self._sampler.answers(rows, 1, step, seed, sampling)
        return in_order(parallel.gather_over_all(mine), len(rows), 1)

    def keep(self, step: int, experiences: Sequence[Experience], digest: str = "") -> None:
        """Put them into the step's file; `digest` names the weights that gave them."""
        if parallel.rank() == 0:
            with self._times.timed("store"):
                rollouts.write(self._rank.run, step, [e.record(number) for number, e in enumerate(experiences)], digest)
        parallel.barrier()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within: what is sampled belongs to no step."""
        with self._times.aside(), self._sampler.aside():
            yield

    def measured(self) -> Metrics:
        """The seconds of sampling since it was asked last, and the engine's profile; nothing where nothing was sampled."""
        times = self._times.take()
        return {**self._sampler.profile(), **times} if times else {}


class OwnAnswers:
    """`workbench.algorithms.OwnAnswers` on one rank. `step` tells the steps done so far."""

    def __init__(self, rank: Rank, policy: Policy, drawn: Drawn, step: Callable[[], int]):
        self._answering, self._seed, self._step = Answering(rank, policy, drawn), rank.spec.seed, step
        self.measured = self._answering.measured

    def answers(self, rows: Sequence[Row]) -> list[Answer]:
        done = self._step()
        experiences = self._answering.sampled(rows, done + 1, self._seed, done)
        self._answering.keep(done + 1, experiences)
        return as_answers(experiences)


def as_answers(experiences: Sequence[Experience]) -> list[Answer]:
    return [Answer(e.tokens, e.finish_reason == "stop") for e in experiences]
