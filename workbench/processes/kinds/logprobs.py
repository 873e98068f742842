"""Scoring: the log-probability of every answer of a data set under a model. A resume continues with the next rows.

scored.jsonl   answers in groups by prompt and requested ratings, in NeMo-Aligner's format of SteerLM 2, or one a line (`workbench.rundir.annotations`)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from workbench.settings.sections import CheckpointJob

if TYPE_CHECKING:
    from workbench.data.rows import Conversation
    from workbench.processes.rank import Rank
    from workbench.processes.row_job import Made


class Config(CheckpointJob):
    """Compute log P(answer | prompt), summed over the answer's tokens with the one that ends it."""

    sections = ("model", "data", "watch", "backend")
    doing = "computing log-probabilities"
    reads = "answered"
    outputs: ClassVar = {"rows": "scored.jsonl"}

    name: Literal["logprobs"] = "logprobs"
    write: Literal["rows", "steerlm2"] = Field(
        default="rows",
        description="The rows, each with `logprob` and `logprob_tokens`; or for SteerLM 2 the answers to a prompt under the same requested ratings together,"
        " with log P(a|x,y), which job=annotate wrote, and log P(y|x).",
    )
    rows_per_step: int = Field(default=64, ge=1, le=65536, description="Rows, or groups of them, scored before they are saved: what a kill can lose.")


class Scoring:
    """One rank of it. The prompt is asked without ratings: it is the unconditioned model's probability."""

    def __init__(self, rank: Rank):
        from workbench.processes.restored import restored_policy
        from workbench.processes.row_job import answered

        assert isinstance(rank.spec.job, Config)
        self._rank, self._cfg = rank, rank.spec.job
        self.rows_per_step = self._cfg.rows_per_step
        rows = answered(rank)
        self.groups = [[row] for row in rows] if self._cfg.write == "rows" else self._grouped(rows)
        self._policy, _ = restored_policy(rank)

    def score(self, start: int, end: int) -> Made:
        """Score some groups."""
        from workbench import metrics as M
        from workbench.data.chat import Encoded
        from workbench.data.rows import Malformed, Unpaired
        from workbench.settings.outputs import Outputs

        groups = self.groups[start:end]
        rows = [row for group in groups for row in group]
        texts = [Unpaired(row.messages[:-1], row.messages[-1].content, True, row.where, row.tools) for row in rows]
        encoded = []
        for text, result in zip(texts, self._rank.chat.encode(texts), strict=True):
            if isinstance(result, Malformed):
                raise ValueError(f"{text.where}: expected {result.args[0]}; found {result.args[1]}")
            assert isinstance(result, Encoded)
            encoded.append(result.row)
        given = self._policy.outputs(encoded, Outputs(logprobs=True))
        sums = [float(each.of("logprobs_N").astype("float64").sum()) for each in given]
        tokens = [len(row.branches[0]) for row in encoded]
        values = iter(zip(sums, tokens, strict=True))
        lines = [self._line(group, [next(values) for _ in group]) for group in groups]
        return lines, {M.LOGPROBS: sum(sums) / sum(tokens)}

    def _line(self, group: list[Conversation], scores: list[tuple[float, int]]) -> dict[str, object]:
        from workbench.data.formats.steerlm2 import ATTRIBUTES, BASE

        if self._cfg.write == "rows":
            (row,), ((logprob, tokens),) = group, scores
            prompt, response = _prompt(row), row.messages[-1].content
            return {**row.columns, "prompt": prompt, "response": response, "logprob": logprob, "logprob_tokens": tokens}
        first = group[0]
        turns = [{"from": each["role"].capitalize(), "value": each["content"]} for each in _prompt(first) if each["role"] != "system"]
        answers = [
            {"from": "Assistant", "value": row.messages[-1].content, ATTRIBUTES: row.columns[ATTRIBUTES], BASE: logprob}
            for row, (logprob, _) in zip(group, scores, strict=True)
        ]
        label = ",".join(f"{name}:{value:g}" for name, value in _requested(first).items())
        system = first.messages[0].content if first.messages[0].role == "system" else ""
        return {"system": system, "prompt_turns": turns, "label": label, "responses": answers}

    def _grouped(self, rows: list[Conversation]) -> list[list[Conversation]]:
        """Those of `_grouped`, of the answers that ended: log P is that of a whole answer. What is left out is counted in a warning."""
        ended = [row for row in rows if row.columns.get("finish_reason") != "length"]
        groups = _grouped(ended)
        kept = sum(map(len, groups))
        if kept < len(rows):
            self._rank.warn(
                f"{len(rows) - kept:,} of {len(rows):,} answers are left out: {len(rows) - len(ended):,} were cut off at their longest,"
                f" {len(ended) - kept:,} are equal to another answer or the only one to their prompt"
            )
        return groups


def _prompt(row: Conversation) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in row.messages[:-1]]


def _requested(row: Conversation) -> Mapping[str, float]:
    requested = row.columns.get("requested")
    if not isinstance(requested, Mapping) or not requested:
        raise ValueError(f"{row.where}: job.write=steerlm2 groups answers by the ratings that they were asked for; this row has no `requested`")
    return requested


def _grouped(rows: list[Conversation]) -> list[list[Conversation]]:
    """Answers to the same prompt under the same requested ratings; of equal answers the first. Groups of one answer are left out.

    Raises:
        ValueError: a row has no requested ratings, or no log P(a|x,y) of an ordinal attribute model.
    """
    from workbench.data.formats.steerlm2 import ATTRIBUTES

    groups: dict[str, dict[str, Conversation]] = {}
    for row in rows:
        if not isinstance(row.columns.get(ATTRIBUTES), int | float):
            raise ValueError(f"{row.where}: job.write=steerlm2 needs {ATTRIBUTES!r}, which job=annotate writes with an ordinal attribute model")
        key = json.dumps([_prompt(row), dict(_requested(row))], sort_keys=True)
        groups.setdefault(key, {}).setdefault(row.messages[-1].content, row)
    whole = [list(group.values()) for group in groups.values() if len(group) > 1]
    if not whole:
        raise ValueError("job.write=steerlm2 compares answers to the same prompt: sample several (job.samples_per_prompt of job=generate)")
    return whole


def work(rank: Rank) -> None:
    """What a rank of this kind of job does."""
    from workbench.processes.row_job import over_rows

    job = Scoring(rank)
    over_rows(rank, len(job.groups), job.rows_per_step, job.score)
