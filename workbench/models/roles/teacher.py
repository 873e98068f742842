"""The teacher of a distillation: another model's log-probabilities of the answers' tokens, and its own likeliest tokens at each place.

It fills `teacher_logprobs` [T], and where `algorithm.teacher.top_k` is K above 0 `teacher_tokens`, `teacher_top_logprobs` [T, K] and
`teacher_rest` [T], the log of all other tokens' mass. An algorithm without rollouts asks it about rows, and gets the latter three alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from workbench.data.packing import Row
from workbench.models import messages
from workbench.models.asking import Asked
from workbench.models.endpoint import TOKENS, Arrays, Field
from workbench.models.frozen import frozen, laid_out
from workbench.models.protocol import Answers, Connected, Role, Served, Surroundings, Transport
from workbench.rollout.experience import Experience, fill, group_into_rows
from workbench.settings import AlgorithmConfig, Model
from workbench.settings.layout import Layout
from workbench.settings.online import SamplingConfig
from workbench.settings.outputs import Outputs
from workbench.settings.placement import Place

if TYPE_CHECKING:
    from workbench.engine.step import Policy


AT_ONCE = 16
"""Rows of one request."""


class _Teacher(Protocol):
    @property
    def source(self) -> str | None: ...
    @property
    def top_k(self) -> int: ...
    @property
    def processes(self) -> int: ...
    @property
    def layout(self) -> Layout: ...


class _Taught(Protocol):
    """Settings of an algorithm that learns from a teacher. With rollouts the temperature is that of its answers, else that of the teacher's distribution."""

    @property
    def teacher(self) -> _Teacher: ...
    @property
    def temperature(self) -> float: ...


class Telling(Connected, Protocol):
    """The teacher as one that is asked about rows."""

    def columns(self, rows: Sequence[Row], progress: Callable[[int, int], None] | None = None) -> dict[str, list[np.ndarray]]:
        """By name what it tells of the rows' targets, an array a row. All ranks make the same calls."""
        ...


def placement(algorithm: AlgorithmConfig, model: Model) -> Place:
    teacher = cast(_Taught, algorithm).teacher
    sources = () if teacher.source is None else (teacher.source,)
    return Place(teacher.processes, teacher.layout, sources, "algorithm.teacher.processes")


class TeacherModel:
    """The teacher in this gang: every rank makes the same calls.

    Args:
        wanted: log-probabilities of the targets, the likeliest tokens, or both.

    Raises:
        ValueError: its tokens are not the policy's, or there are not so many.
    """

    def __init__(self, around: Surroundings, source: str, wanted: Outputs):
        from workbench.engine import hf

        directory = hf.local_directory(source)
        check_vocabulary(source, directory, around.directory)
        model = laid_out(Model(source=source, precision=around.spec.model.precision), around.layout)
        self.policy = frozen(model, directory, around.spec.algorithm.micro_batch_tokens, wanted)

    def columns(self, rows: Sequence[Row], progress: Callable[[int, int], None] | None = None) -> dict[str, list[np.ndarray]]:
        """By name what it tells of the rows' targets, an array a row."""
        given, wanted = self.policy.outputs(rows, progress=progress), self.policy.wanted
        result = {"teacher_logprobs": [each.of("logprobs_N") for each in given]} if wanted.logprobs else {}
        if wanted.top_k:
            top = [each.of("top_k") for each in given]
            result |= {"teacher_tokens": [each.tokens_NK for each in top], "teacher_top_logprobs": [each.logprobs_NK for each in top]}
            result["teacher_rest"] = [each.rest_N for each in top]
        return result


def check_vocabulary(source: str, directory: Path, own: Path) -> None:
    """Raises ValueError where the teacher, `source` in its Hugging Face directory, has other tokens than the policy in `own`; the message names the first."""
    from workbench.engine import hf

    theirs, ours = hf.tokenizer(directory).get_vocab(), hf.tokenizer(own).get_vocab()
    if theirs != ours:
        raise ValueError(
            f"algorithm.teacher.source={source} has another vocabulary than the policy, {_differing(theirs, ours)}: a teacher's probabilities are of"
            " its own tokens; take a teacher with the policy's tokenizer"
        )


def _differing(theirs: Mapping[str, int], ours: Mapping[str, int]) -> str:
    """The first token that two vocabularies differ in, and how many they have."""
    token = min((token for token in {*theirs, *ours} if theirs.get(token) != ours.get(token)), key=lambda token: theirs.get(token, len(theirs)))
    numbers = (f"{token!r} is {'no token' if number is None else f'token {number:,}'}" for number in (theirs.get(token), ours.get(token)))
    return f"{len(theirs):,} tokens against {len(ours):,} ({' there and '.join(numbers)} here)"


def _asked(around: Surroundings) -> TeacherModel:
    """The teacher as the algorithm's settings ask for it. Raises ValueError as `TeacherModel` does, and where they name none."""
    settings = cast(_Taught, around.spec.algorithm)
    source, top_k = settings.teacher.source, settings.teacher.top_k
    if source is None:
        raise ValueError("algorithm.teacher.source: a teacher is learnt from: name its directory or hub id")
    on_rollouts = isinstance(around.spec.algorithm, SamplingConfig)
    return TeacherModel(
        around, source, Outputs(logprobs=True, top_k=top_k) if on_rollouts else Outputs(top_k=top_k, temperature=settings.temperature)
    )


class LocalTeacher:
    """The teacher in the policy's own processes."""

    transport: Transport | None = None

    def __init__(self, model: TeacherModel):
        self.columns, self._model = model.columns, model

    def begin(self, experiences: Sequence[Experience]) -> None: ...

    def fill(self, experiences: Sequence[Experience]) -> None:
        for name, rows in self._model.columns(group_into_rows(experiences, {})).items():
            fill(experiences, rows, name)


class RemoteTeacher:
    """The teacher behind a server."""

    def __init__(self, transport: Transport):
        self.transport: Transport | None = transport
        self._call, self._asked = transport.call, Asked()

    def begin(self, experiences: Sequence[Experience]) -> None:
        if experiences:
            self._asked.add(experiences, self._call("teacher", **messages.request(experiences)))

    def fill(self, experiences: Sequence[Experience]) -> None:
        def own(e: Experience, answer: Arrays, i: int) -> dict[str, np.ndarray]:
            start = len(e.row.prefix)
            return {name: np.array(array[i, start : start + len(e.tokens)]) for name, array in answer.items()}

        answers = self._asked.collect(experiences[0].step, own)
        for e in experiences:
            for name, values in answers[e.prompt_index, e.sample].items():
                e.put(name, values)

    def columns(self, rows: Sequence[Row], progress: Callable[[int, int], None] | None = None) -> dict[str, list[np.ndarray]]:
        """As `Telling`: each rank asks about its share, one request after the other."""
        from workbench.engine import parallel

        answered: dict[int, dict[str, np.ndarray]] = {}
        mine = range(parallel.rank(), len(rows), parallel.world_size())
        for start in range(0, len(mine), AT_ONCE):
            numbers = mine[start : start + AT_ONCE]
            answer = self._call("teacher", **messages.of_rows([rows[i] for i in numbers])).result()
            for number, i in enumerate(numbers):
                answered[i] = {name: np.array(array[number, messages.sequence(rows[i])[1]]) for name, array in answer.items()}
            if progress:
                progress(len(answered), len(mine))
        whole = {i: each for part in parallel.gather_over_all(answered) for i, each in part.items()}
        return {name: [whole[i][name] for i in range(len(rows))] for name in whole[0]}


class Server:
    """`teacher`: what it tells of each answered token, at the token's place."""

    constant = True

    def __init__(self, around: Surroundings):
        self._model = _asked(around)

    def endpoints(self) -> Mapping[str, Answers]:
        outputs = [Field("teacher_logprobs", np.float32, 2)] if self._model.policy.wanted.logprobs else []
        if self._model.policy.wanted.top_k:
            outputs += [Field("teacher_tokens", np.int64, 3), Field("teacher_top_logprobs", np.float32, 3), Field("teacher_rest", np.float32, 2)]
        return {"teacher": Answers(TOKENS, tuple(outputs), self.answer)}

    def models(self) -> Sequence[Policy]:
        return [self._model.policy]

    def answer(self, arrays: Arrays) -> Arrays:
        return {name: messages.by_token(arrays, values) for name, values in self._model.columns(messages.rows(arrays)).items()}


def local(around: Surroundings) -> Role:
    return LocalTeacher(_asked(around))


def remote(around: Surroundings, transport: Transport) -> Role:
    return RemoteTeacher(transport)


def serve(around: Surroundings) -> Served:
    return Server(around)
