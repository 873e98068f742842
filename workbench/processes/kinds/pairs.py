"""Pairing: of rated answers to the same prompt the better and the worse one, as rows that preferences are learnt from. It computes with no model.

pairs.jsonl   {"prompt", "chosen", "rejected", "chosen_reward", "rejected_reward"}, and "tools" where the prompt has some
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from workbench import metrics as M
from workbench.settings import JobConfig

if TYPE_CHECKING:
    from workbench.data.rows import Conversation
    from workbench.processes.rank import Rank

REWARD = "reward"
"""The column of a row in which `job=reward` writes what its answer is worth."""
_LEFT_OUT = {
    "truncated": "answers were cut off at their longest",
    "unrated": "answers have no rating",
    "equal": "answers are equal to another one to their prompt",
    "alone": "prompts have one answer that is left",
    "tied": "prompts have answers of equal worth, or nearer than job.margin",
}


class Config(JobConfig):
    """Make preference pairs of several rated answers to each prompt."""

    sections = ("model", "data", "backend")
    doing = "pairing"
    reads = "answered"
    outputs: ClassVar = {"rows": "pairs.jsonl"}

    name: Literal["pairs"] = "pairs"
    by: dict[str, float] = Field(
        default={},
        description="What an answer is worth: ratings by name with their weights, {helpfulness: 1, verbosity: -0.3}; empty: `reward` as job=reward wrote it,"
        " else the only attribute that the rows have.",
    )
    pairs: Literal["extremes", "all"] = Field(
        default="extremes", description="Of each prompt the best with the worst answer, or every two that differ."
    )
    margin: float = Field(default=0.0, ge=0, description="How far apart two answers are worth at least; those of equal worth are never a pair.")
    truncated: Literal["drop", "keep"] = Field(
        default="drop", description="Answers that were cut off at their longest: left out, or taken as they are, as if they ended there."
    )


@dataclass(frozen=True)
class Pair:
    """Two rows with the same prompt, and what their answers are worth."""

    chosen: Conversation
    rejected: Conversation
    chosen_reward: float
    rejected_reward: float

    def line(self) -> dict[str, object]:
        """As a row of data."""
        answers = {"chosen": self.chosen.messages[-1].content, "rejected": self.rejected.messages[-1].content}
        tools = {"tools": list(self.chosen.tools)} if self.chosen.tools else {}
        return {"prompt": prompt_of(self.chosen), **answers, "chosen_reward": self.chosen_reward, "rejected_reward": self.rejected_reward, **tools}


@dataclass(frozen=True)
class Paired:
    """The pairs, and by reason how many answers and prompts are left out (`_LEFT_OUT`)."""

    pairs: Sequence[Pair]
    left_out: Mapping[str, int]

    def warnings(self) -> list[str]:
        """A sentence for each reason."""
        return [f"{self.left_out[reason]:,} {what}" for reason, what in _LEFT_OUT.items() if self.left_out.get(reason)]

    def metrics(self) -> dict[str, float]:
        """What chosen and rejected answers are worth in the mean."""
        chosen = sum(pair.chosen_reward for pair in self.pairs) / len(self.pairs)
        rejected = sum(pair.rejected_reward for pair in self.pairs) / len(self.pairs)
        return {M.REWARDS_CHOSEN_MEAN: chosen, M.REWARDS_REJECTED_MEAN: rejected, M.REWARDS_MARGIN: chosen - rejected}


def paired(rows: Sequence[Conversation], cfg: Config) -> Paired:
    """The pairs of all prompts, in the order in which these come first; of equal answers to a prompt the first counts.

    Raises:
        ValueError: no row has what `by` names, a rating that is not a finite number, an answer that is not text alone, or no pair is left.
    """
    weights = _weights(rows, cfg.by)
    counts: Counter[str] = Counter()
    prompts: dict[str, dict[str, tuple[float, Conversation]]] = {}
    for row in rows:
        answer = row.messages[-1]
        if answer.extra:
            raise ValueError(f"{row.where}: job=pairs pairs answers that are text alone; this one has {', '.join(answer.extra)}")
        worth = _worth(row, weights)
        if cfg.truncated == "drop" and row.columns.get("finish_reason") == "length":
            counts["truncated"] += 1
        elif worth is None:
            counts["unrated"] += 1
        elif answer.content in (answers := prompts.setdefault(prompt_key(row), {})):
            counts["equal"] += 1
        else:
            answers[answer.content] = worth, row
    made: list[Pair] = []
    for answers in prompts.values():
        pairs = list(_pairs(list(answers.values()), cfg))
        counts["alone" if len(answers) == 1 else "tied"] += not pairs
        made += pairs
    result = Paired(made, counts)
    if not made:
        raise ValueError(
            f"no prompt has two answers of different worth ({'; '.join(result.warnings())}): sample several answers (job.samples_per_prompt of job=generate)"
        )
    return result


def _pairs(answers: Sequence[tuple[float, Conversation]], cfg: Config) -> Iterator[Pair]:
    order = sorted(answers, key=lambda answer: -answer[0])
    for (high, chosen), (low, rejected) in [(order[0], order[-1])] if cfg.pairs == "extremes" else itertools.combinations(order, 2):
        if high > low and high - low >= cfg.margin:
            yield Pair(chosen, rejected, high, low)


def prompt_of(row: Conversation) -> list[dict[str, object]]:
    """What stands before the row's answer, as messages."""
    return [{"role": message.role, "content": message.content, **message.extra} for message in row.messages[:-1]]


def prompt_key(row: Conversation) -> str:
    """The same for rows that answer the same prompt with the same tools."""
    return json.dumps([prompt_of(row), row.tools], default=str)


def _weights(rows: Sequence[Conversation], by: Mapping[str, float]) -> Mapping[str, float]:
    """`by`, or where it is empty what the rows leave no choice about."""
    known = list(dict.fromkeys(name for row in rows for name in _ratings(row)))
    if missing := [name for name in by if name not in known]:
        raise ValueError(f"job.by={missing[0]}: no row has this rating; there are: {', '.join(known) or 'none'}")
    if not known:
        raise ValueError("job=pairs needs rated answers: rows of job=reward or job=annotate, or with `attributes`; these have no rating")
    if not by and REWARD not in known and len(known) > 1:
        raise ValueError(
            f"job.by: the rows have several ratings ({', '.join(known)}): say which make an answer better, as in job.by={{{known[0]}: 1}}"
        )
    return by or {REWARD if REWARD in known else known[0]: 1.0}


def _ratings(row: Conversation) -> Mapping[str, object]:
    """The answer's ratings by name: attributes, those that a model expects in place of the rounded ones, and its reward."""
    expected = row.columns.get("expected")
    given = {**row.messages[-1].ratings, **(expected if isinstance(expected, Mapping) else {})}
    return {**given, REWARD: row.columns[REWARD]} if REWARD in row.columns else given


def _worth(row: Conversation, weights: Mapping[str, float]) -> float | None:
    """The weighted sum; None where one of the ratings is unknown."""
    ratings, total = _ratings(row), 0.0
    for name, weight in weights.items():
        rating = ratings.get(name)
        if rating is None:
            return None
        if isinstance(rating, bool) or not isinstance(rating, int | float) or not math.isfinite(rating):
            raise ValueError(f"{row.where}: {name}: expected a finite number, or null where it is unknown; found {str(rating)[:60]!r}")
        total += weight * rating
    return total


def work(rank: Rank) -> None:
    """Rank 0 reads, pairs and writes."""
    from workbench.data.limits import Limits
    from workbench.data.readers import Changes, read
    from workbench.data.rows import Conversation
    from workbench.engine import parallel
    from workbench.rundir import annotations, beats

    cfg, data = rank.spec.job, rank.spec.data
    assert isinstance(cfg, Config)
    rank.emit("state", state="running", step=0, total_steps=1)
    if parallel.rank() == 0:
        with beats.doing("pairing"):
            rows = read(data.train, "answered", data.format, data.on_bad_row, data.limit, Limits.of(data), Changes.of(data))
            result = paired([row for row in rows.rows if isinstance(row, Conversation)], cfg)
            annotations.write(rank.run.path / annotations.PAIRS, (pair.line() for pair in result.pairs))
        skipped = [f"{rows.num_bad:,} malformed rows are left out"] if rows.num_bad else []
        for warning in (*skipped, *result.warnings()):
            rank.warn(warning)
        rank.emit("step", step=1, metrics=result.metrics())
    rank.emit("end", reason="completed", step=1)
