"""Annotating: each answer of a data set rated by an attribute model, by rules, or both. A resume continues with the next rows.

annotated.jsonl   the rows with their ratings (`workbench.rundir.annotations`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from workbench.settings import functions
from workbench.settings.sections import CheckpointJob

if TYPE_CHECKING:
    from workbench.data.packing import Row
    from workbench.data.rows import Conversation
    from workbench.processes.attribute_models import Measured
    from workbench.processes.rank import Rank
    from workbench.processes.row_job import Made

LEFT_OUT = ("tokens", "logprobs")
"""Columns of sampled answers that are not written again."""


class Config(CheckpointJob):
    """Rate every answer of a data set."""

    sections = ("model", "data", "watch", "backend")
    reads = "answered"
    outputs: ClassVar = {"rows": "annotated.jsonl"}
    takes_over = ("steering", "algorithm")
    takes_scorers = True

    name: Literal["annotate"] = "annotate"
    rules: tuple[str, ...] = Field(
        default=(), description="Functions that rate an answer, beside or in place of a model: names of rules, or path/to/file.py:function."
    )
    turns: Literal["last", "all", "rated"] = Field(
        default="last", description="Which of a conversation's answers are rated: the last, all, or those that have ratings already."
    )
    write: Literal["rows", "conversations", "nemo"] = Field(
        default="rows",
        description="A line for each rated answer with its prompt; for each conversation, the ratings in its turns; or that in NeMo-Aligner's format.",
    )
    rows_per_step: int = Field(default=64, ge=1, le=65536, description="Rows rated before they are saved: what a kill can lose.")

    def problems(self) -> list[tuple[str, str]]:
        from workbench.steering import rules

        return [("rules", what) for what in rules.problems(self.rules)]

    def with_absolute_paths(self, absolute: Callable[[str], str]) -> Self:
        return self.model_copy(update={"rules": tuple(functions.with_absolute_path(name, absolute) for name in self.rules)})


class Annotation:
    """One rank of it."""

    def __init__(self, rank: Rank):
        from workbench.processes.attribute_models import head_of
        from workbench.processes.restored import restored_policy
        from workbench.processes.row_job import answered
        from workbench.settings.modules import NO_ALGORITHM
        from workbench.steering import rules

        assert isinstance(rank.spec.job, Config)
        self._rank, self._cfg = rank, rank.spec.job
        self.rows_per_step = self._cfg.rows_per_step
        self._rules = rules.find_all(self._cfg.rules)
        self._head = None
        if self._cfg.checkpoint or rank.spec.algorithm.name != NO_ALGORITHM or not self._rules:
            self._head = head_of(rank.spec.algorithm, rank.directory)
            rank.spec = rank.spec.model_copy(update={"algorithm": self._head})
            if both := sorted(set(self._head.attributes) & set(self._rules)):
                raise ValueError(f"job.rules and the attribute model both rate {', '.join(both)}: leave the rule out")
        self.rows = answered(rank)
        self._policy = restored_policy(rank)[0] if self._head else None

    def rate(self, start: int, end: int) -> Made:
        """Rate some rows."""
        rows = self.rows[start:end]
        turns = [(row, i) for row in rows for i in self._to_rate(row)]
        measured = self._measured(turns)
        lines: list[Mapping[str, object]] = []
        marks: dict[tuple[int, int], Mapping[str, float]] = {}
        for (row, i), of in zip(turns, measured, strict=True):
            ratings, more = self._ratings(row, i, of)
            marks[id(row), i] = ratings
            if self._cfg.write == "rows":
                lines.append({**_columns(row), "prompt": _messages(row, i), "response": row.messages[i].content, "attributes": ratings, **more})
        if self._cfg.write != "rows":
            lines = [(_conversation if self._cfg.write == "conversations" else _nemo)(row, marks) for row in rows]
        return lines, _means(list(marks.values()))

    def _to_rate(self, row: Conversation) -> list[int]:
        answers = [i for i, message in enumerate(row.messages) if message.role == "assistant" and message.content.strip() and i]
        if self._cfg.turns == "last":
            return answers[-1:] if answers and answers[-1] == len(row.messages) - 1 else []
        return answers if self._cfg.turns == "all" else [i for i in answers if row.messages[i].ratings]

    def _measured(self, turns: Sequence[tuple[Conversation, int]]) -> list[Measured | None]:
        from workbench.data.chat import Encoded, TooLong
        from workbench.data.rows import Malformed, Rated
        from workbench.processes.attribute_models import measured

        if self._policy is None or self._head is None:
            return [None] * len(turns)
        texts = [Rated(row.messages[:i], row.messages[i].content, {}, row.where, row.tools) for row, i in turns]
        encoded: list[Row] = []
        for text, result in zip(texts, self._rank.chat.encode(texts), strict=True):
            if isinstance(result, Malformed):
                raise ValueError(f"{text.where}: expected {result.args[0]}; found {result.args[1]}")
            assert isinstance(result, Encoded) and not isinstance(result, TooLong)
            encoded.append(result.row)
        return [measured(given.of("scores_SK")[0], self._head) for given in self._policy.outputs(encoded)]

    def _ratings(self, row: Conversation, i: int, of: Measured | None) -> tuple[dict[str, float], dict[str, object]]:
        """The whole ratings, and what else is known: the expected ones, the probabilities, and how likely the requested ones are."""
        from workbench.data.formats.steerlm2 import ATTRIBUTES
        from workbench.steering import rules

        ratings: dict[str, float] = {}
        more: dict[str, object] = {}
        if given := row.messages[i].ratings:
            more["ratings"] = dict(given)
        if of:
            ratings |= of.rounded()
            more["expected"] = dict(of.expected)
            if of.log_probs is not None:
                import numpy as np

                more["probabilities"] = {name: np.exp(each).tolist() for name, each in of.log_probs.items()}
                if isinstance(requested := row.columns.get("requested"), Mapping):
                    more[ATTRIBUTES] = of.log_likelihood({name: value for name, value in requested.items() if name in of.log_probs})
        prompt = _messages(row, i)
        for name, rule in self._rules.items():
            value = rules.rate(name, rule, prompt, row.messages[i].content)
            if value is not None:
                ratings[name] = int(value) if value == int(value) else value
        return ratings, more


def _messages(row: Conversation, end: int) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in row.messages[:end]]


def _columns(row: Conversation) -> dict[str, object]:
    return {name: value for name, value in row.columns.items() if name not in LEFT_OUT}


def _conversation(row: Conversation, marks: Mapping[tuple[int, int], Mapping[str, float]]) -> dict[str, object]:
    """A line with the ratings in its turns; those of turns that were not rated stay."""
    turns = []
    for i, message in enumerate(row.messages):
        ratings = marks.get((id(row), i), message.ratings)
        turns.append({"role": message.role, "content": message.content, **message.extra, **({"attributes": dict(ratings)} if ratings else {})})
    return {**_columns(row), "messages": turns, **({"tools": list(row.tools)} if row.tools else {})}


def _nemo(row: Conversation, marks: Mapping[tuple[int, int], Mapping[str, float]]) -> dict[str, object]:
    """A line in NeMo-Aligner's format: whole ratings as a label, null where there are none."""
    system = row.messages[0].content if row.messages[0].role == "system" else ""
    turns = []
    for i, message in enumerate(row.messages):
        if message.role == "system" and i == 0:
            continue
        if message.role not in ("user", "assistant") or message.extra:
            raise ValueError(
                f"{row.where}: NeMo-Aligner's format has turns of text by User and Assistant alone; job.write=conversations keeps others"
            )
        ratings = marks.get((id(row), i), message.ratings)
        label = ",".join(f"{name}:{value:g}" for name, value in ratings.items()) or None
        turns.append({"from": message.role.capitalize(), "value": message.content, "label": label})
    return {"system": system, "mask": "User", "type": "VALUE_TO_TEXT", "conversations": turns}


def _means(marks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    from workbench import metrics as M

    names = dict.fromkeys(name for ratings in marks for name in ratings)
    by_name = {name: [ratings[name] for ratings in marks if name in ratings] for name in names}
    return {M.RATING_OF(name): sum(values) / len(values) for name, values in by_name.items()}


def work(rank: Rank) -> None:
    """What a rank of this kind of job does."""
    from workbench.processes.row_job import over_rows

    job = Annotation(rank)
    over_rows(rank, len(job.rows), job.rows_per_step, job.rate)
