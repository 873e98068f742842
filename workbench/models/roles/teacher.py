"""The teacher of a distillation: another model's log-probabilities of the answers' tokens, and its own likeliest tokens at each place.

It fills `teacher_logprobs` [T], and where `algorithm.teacher.top_k` is K above 0 `teacher_tokens`, `teacher_top_logprobs` [T, K] and
`teacher_rest` [T], the log of all other tokens' mass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from workbench.data.packing import Row
from workbench.models import messages
from workbench.models.asking import Asked
from workbench.models.endpoint import TOKENS, Arrays, Field
from workbench.models.frozen import frozen, laid_out
from workbench.models.protocol import Answers, Role, Served, Surroundings, Transport
from workbench.rollout.experience import Experience, fill, group_into_rows
from workbench.settings import AlgorithmConfig, Model
from workbench.settings.online import Teacher
from workbench.settings.outputs import Outputs
from workbench.settings.placement import Place

if TYPE_CHECKING:
    from workbench.engine.step import Policy


class _Taught(Protocol):
    """Settings of an algorithm that learns from a teacher."""

    teacher: Teacher


def placement(algorithm: AlgorithmConfig, model: Model) -> Place:
    teacher = cast(_Taught, algorithm).teacher
    return Place(teacher.processes, teacher.layout, (teacher.source,), "algorithm.teacher.processes")


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
        theirs, ours = hf.tokenizer(directory).get_vocab(), hf.tokenizer(around.directory).get_vocab()
        if theirs != ours:
            raise ValueError(
                f"algorithm.teacher.source={source} has another vocabulary than the policy, {_differing(theirs, ours)}: a teacher's probabilities are of"
                " its own tokens; take a teacher with the policy's tokenizer"
            )
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


def _differing(theirs: Mapping[str, int], ours: Mapping[str, int]) -> str:
    """The first token that two vocabularies differ in, and how many they have."""
    token = min((token for token in {*theirs, *ours} if theirs.get(token) != ours.get(token)), key=lambda token: theirs.get(token, len(theirs)))
    numbers = (f"{token!r} is {'no token' if number is None else f'token {number:,}'}" for number in (theirs.get(token), ours.get(token)))
    return f"{len(theirs):,} tokens against {len(ours):,} ({' there and '.join(numbers)} here)"


def _asked_of_answers(around: Surroundings) -> TeacherModel:
    """The teacher as the settings of an algorithm with rollouts ask for it."""
    settings = cast(_Taught, around.spec.algorithm).teacher
    return TeacherModel(around, settings.source, Outputs(logprobs=True, top_k=settings.top_k))


class LocalTeacher:
    """The teacher in the policy's own processes."""

    transport: Transport | None = None

    def __init__(self, model: TeacherModel):
        self._model = model

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


class Server:
    """`teacher`: what it tells of each answered token, at the token's place."""

    constant = True

    def __init__(self, around: Surroundings):
        self._model = _asked_of_answers(around)

    def endpoints(self) -> Mapping[str, Answers]:
        outputs = [Field("teacher_logprobs", np.float32, 2)]
        if self._model.policy.wanted.top_k:
            outputs += [Field("teacher_tokens", np.int64, 3), Field("teacher_top_logprobs", np.float32, 3), Field("teacher_rest", np.float32, 2)]
        return {"teacher": Answers(TOKENS, tuple(outputs), self.answer)}

    def models(self) -> Sequence[Policy]:
        return [self._model.policy]

    def answer(self, arrays: Arrays) -> Arrays:
        return {name: messages.by_token(arrays, values) for name, values in self._model.columns(messages.rows(arrays)).items()}


def local(around: Surroundings) -> Role:
    return LocalTeacher(_asked_of_answers(around))


def remote(around: Surroundings, transport: Transport) -> Role:
    return RemoteTeacher(transport)


def serve(around: Surroundings) -> Served:
    return Server(around)
