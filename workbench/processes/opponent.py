"""The opponent of self-play: the advancing reference as a player. Its answers are kept in the run's rollout files, where a page shows them and a resume finds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from workbench.algorithms import Answer
from workbench.data.packing import Row
from workbench.engine import parallel
from workbench.engine.batch import Metrics
from workbench.engine.step import Policy
from workbench.processes.answering import Answering, as_answers
from workbench.processes.rank import Rank
from workbench.rewards.waiting import StopRequested
from workbench.rollout.base import Drawn
from workbench.rollout.experience import prompt_id
from workbench.rundir import rollouts
from workbench.rundir.rollout_files import folder

SEED = 0
"""Of answers to held-out prompts: each is drawn the same way by every opponent."""


class Opponent:
    """`workbench.algorithms.OpponentRuntime` on one rank; all ranks make the same calls. `stop_requested` is asked between the files that it writes."""

    def __init__(self, rank: Rank, policy: Policy, stop_requested: Callable[[], bool]):
        self._rank, self._policy, self._stop_requested = rank, policy, stop_requested
        self._answering = Answering(rank, policy, cast(Drawn, rank.spec.algorithm))
        self._once: tuple[str, list[Answer]] = ("", [])

    @property
    def version(self) -> int:
        """How often the reference was moved up to the policy."""
        assert self._policy.snapshot, "an opponent is a reference that advances"
        return self._policy.snapshot.version

    def answers(self, rows: Sequence[Row], first: int, digest: str, name: str) -> list[Answer]:
        size = self._rank.spec.algorithm.global_batch_size
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        given = [self._stored(first + 1 + i, part, digest) for i, part in enumerate(parts)]
        missing = [i for i, answers in enumerate(given) if answers is None]
        progress = self._rank.progress(f"the opponent of {name} answers")
        with self._policy.as_reference():
            for i in missing:
                if self._stop_requested():
                    raise StopRequested(f"the opponent of {name}")
                progress(sum(len(each) for each in given if each), len(rows))
                given[i] = self._sampled(parts[i], first + 1 + i, first, digest)
        self._rank.emit("phase", message="")
        return [answer for answers in given for answer in answers or ()]

    def earlier(self, rows: Sequence[Row], first: int, digest: str) -> list[Answer]:
        size = self._rank.spec.algorithm.global_batch_size
        result: list[Answer] = []
        for start in range(0, len(rows), size):
            step = first + 1 + start // size
            answers = self._stored(step, rows[start : start + size], digest)
            if answers is None:
                raise ValueError(
                    f"{folder(self._rank.run) / f'{step}.parquet'} no longer has the answers of the iteration before, whose opponent is gone: put the file back,"
                    " or launch the run again; algorithm.mix_previous=false needs no earlier answers"
                )
            result += answers
        return result

    def answers_once(self, rows: Sequence[Row]) -> list[Answer]:
        assert self._policy.snapshot
        digest = self._policy.snapshot.digest()
        if self._once[0] != digest:
            with self._answering.aside(), self._policy.as_reference():
                self._once = digest, as_answers(self._answering.sampled(rows, 0, SEED, self.version))
        return self._once[1]

    def measured(self) -> Metrics:
        """The seconds of sampling since it was asked last, and the engine's profile; nothing where nothing was sampled."""
        return self._answering.measured()

    def _stored(self, step: int, rows: Sequence[Row], digest: str) -> list[Answer] | None:
        """A step's file, where it has the answers of the weights named `digest` to these prompts."""
        return parallel.from_first(self._read(step, rows, digest) if parallel.rank() == 0 else None)

    def _read(self, step: int, rows: Sequence[Row], digest: str) -> list[Answer] | None:
        if rollouts.sampled_by(self._rank.run, step) != digest:
            return None
        stored = rollouts.whole_step(self._rank.run, step)
        if [each["prompt_id"] for each in stored] != [prompt_id(row.prefix) for row in rows]:
            return None
        return [Answer(each["tokens"], each["finish_reason"] == "stop") for each in stored]

    def _sampled(self, rows: Sequence[Row], step: int, updates: int, digest: str) -> list[Answer]:
        """Answers by the weights that are in place, which have seen so many updates, in the step's file."""
        experiences = self._answering.sampled(rows, step, self._rank.spec.seed, self.version)
        for each in experiences:
            each.weights_version = updates
        self._answering.keep(step, experiences, digest)
        return as_answers(experiences)
