"""Rows ready to train on: read, encoded, truncated to length, held out, counted."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np

from workbench.data.chat import Chat, Encoded, TooLong
from workbench.data.limits import Limits
from workbench.data.packing import Row, targets
from workbench.data.readers import BAD_KEPT, BadRow, Changes, DataError, Kind, Rows, read
from workbench.data.rows import Malformed, Preference, PromptOnly, TextRow
from workbench.settings import Data

CHUNK = 64
"""Rows that are encoded together."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Report:
    """What became of a source's rows. Lengths are in tokens, prompt and answers together; `notes` say what a reader of the report should know."""

    rows: int = 0
    bad: int = 0
    dropped: int = 0
    truncated: int = 0
    identical_pairs: int = 0
    duplicates: int = 0
    train: int = 0
    validation: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    length: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Dataset:
    """`texts` are the training rows as they were read; `validation_prompts` the held-out rows' prompts, tokens up to where the assistant's last turn
    begins."""

    train: list[Row]
    validation: list[Row]
    validation_prompts: list[list[int]]
    report: Report
    texts: list[TextRow]


def load(data: Data, kind: Kind, chat: Chat, progress: Progress | None = None) -> Dataset:
    """Everything that a run needs of its data.

    Rows are held out by a hash of their prompt where no validation file is named, so that the split does not change with the order of the
    rows and no prompt is on both sides.

    Raises:
        DataError: a source that cannot be read, a malformed row or one that the model's chat template does not take where bad rows are not skipped, or a
            row over `max_length` where the policy is error.
    """
    limits = Limits.of(data)
    sources = [(data.train, read(data.train, kind, data.format, data.on_bad_row, data.limit, limits, Changes.of(data)))]
    if data.validation:
        sources.append((data.validation, read(data.validation, kind, data.format, data.on_bad_row, limits=limits, changes=Changes.of(data))))
    longest = None if data.overlength == "truncate_left" else data.max_length
    kept: list[tuple[TextRow, Encoded]] = []
    held: list[tuple[TextRow, Encoded]] = []
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for i, (name, source) in enumerate(sources):
        rows, tokens = encoded(source, chat, longest, progress)
        rows.refuse(name, data.on_bad_row)
        counts["rows"] += len(rows.rows)
        counts["bad"] += rows.num_bad
        for text, row in zip(rows.rows, tokens, strict=True):
            _count_text(text, seen, counts)
            fitting = _fitted(row, data, text.where, counts)
            if fitting is not None:
                held_out = i == 1 if data.validation else _held_out(text, data.validation_fraction)
                (held if held_out else kept).append((text, fitting))
    if not held and not data.validation and data.validation_fraction > 0 and len(kept) > 1:
        held.append(kept.pop())
    train, validation = [each.row for _, each in kept], [each.row for _, each in held]
    prompts = [list(each.row.prefix[: each.prompt_tokens]) for _, each in held]
    report = Report(
        **counts,
        train=len(kept),
        validation=len(held),
        notes=[*(note for _, source in sources for note in source.notes), *chat.notes],
        **_lengths(train + validation),
    )
    if kind == "unpaired" and train:
        train, validation = (with_mismatched(part, train, data.max_length) for part in (train, validation))
    return Dataset(train, validation, prompts, report, [text for text, _ in kept])


def encoded(rows: Rows, chat: Chat, longest: int | None = None, progress: Progress | None = None) -> tuple[Rows, list[Encoded | TooLong]]:
    """The rows that the model's chat template takes, with the others among the bad ones, and the tokens of each.

    Args:
        longest: of rows that surely have more tokens it is only said that they do.
    """
    good: list[TextRow] = []
    tokens: list[Encoded | TooLong] = []
    bad, num_bad = list(rows.bad), rows.num_bad
    for start in range(0, len(rows.rows), CHUNK):
        chunk = rows.rows[start : start + CHUNK]
        for text, result in zip(chunk, chat.encode(chunk, longest), strict=True):
            if isinstance(result, Malformed):
                num_bad += 1
                bad += [BadRow(text.where, *result.args)] if len(bad) < BAD_KEPT else []
            else:
                good.append(text)
                tokens.append(result)
        if progress:
            progress(start + len(chunk), len(rows.rows))
    return dataclasses.replace(rows, rows=good, bad=bad, num_bad=num_bad), tokens


def _fitted(row: Encoded | TooLong, data: Data, where: str, counts: Counter[str]) -> Encoded | None:
    if isinstance(row, Encoded):
        fitting = fit(row.row, data.max_length, data.overlength, where, counts)
        return fitting and Encoded(fitting, row.prompt_tokens - (len(row.row.prefix) - len(fitting.prefix)))
    if data.overlength == "error":
        raise _overlong(where, f"more than {row.tokens}", data.max_length)
    counts["dropped"] += 1
    return None


def fit(row: Row, max_length: int, policy: str, where: str, counts: Counter[str]) -> Row | None:
    """The row within `max_length` tokens (prefix and its longest branch), or None where it is dropped; counted as dropped or truncated.

    Raises:
        DataError: it is longer, and the policy is error.
    """
    longest = max(map(len, row.branches), default=0)
    excess = len(row.prefix) + longest - max_length
    if excess <= 0:
        return row
    if policy == "error":
        raise _overlong(where, str(max_length + excess), max_length)
    learnt = np.asarray(row.learn, bool)
    first_learnt = int(learnt.argmax()) if learnt.any() else len(row.prefix) - 1
    if policy == "drop" or excess > first_learnt - (0 if row.branches else 1):
        counts["dropped"] += 1
        return None
    counts["truncated"] += 1
    return dataclasses.replace(row, prefix=row.prefix[excess:], learn=row.learn[excess:] if len(learnt) else ())


def _overlong(where: str, tokens: str, max_length: int) -> DataError:
    return DataError(f"{where}: {tokens} tokens, data.max_length is {max_length}; raise it or set data.overlength=drop")


def with_mismatched(rows: Sequence[Row], donors: Sequence[Row], max_length: int) -> list[Row]:
    """Each row with a second branch: the first answer among the following donors to another prompt, cut where it passes `max_length`.

    From these pairs KTO estimates its KL term (arXiv 2402.01306, section 4.1).

    Raises:
        DataError: every donor answers the same prompt.
    """
    prompts = [tuple(donor.prefix) for donor in donors]
    if len(set(prompts)) < 2:
        raise DataError("unpaired rows need at least two different prompts: the KL term pairs a prompt with another's answer; add rows")
    rows_out = []
    for i, row in enumerate(rows):
        own = tuple(row.prefix)
        other = next(index for step in range(1, len(donors) + 1) if prompts[index := (i + step) % len(donors)] != own)
        answer = donors[other].branches[0][: max(1, max_length - len(own))]
        rows_out.append(dataclasses.replace(row, branches=(*row.branches, answer)))
    return rows_out


def prompt_text(text: TextRow) -> str:
    """What a row asks, as one string: two rows with the same ask the same."""
    return "\n".join(f"{message.role}: {message.content}" for message in text.prompt)


def fingerprint(text: TextRow) -> str:
    """The whole row as one string: two rows with the same are duplicates."""
    columns = text.columns.items() if isinstance(text, PromptOnly) else ()
    turns = [f"{turn.role}: {turn.content}" for each in text.turns for turn in each] if isinstance(text, Preference) else []
    return "\0".join((prompt_text(text), *text.answers, *turns, *(part for column in columns for part in column)))


def _count_text(text: TextRow, seen: set[str], counts: Counter[str]) -> None:
    key = hashlib.sha256(fingerprint(text).encode()).hexdigest()
    counts["duplicates"] += key in seen
    seen.add(key)
    counts["identical_pairs"] += isinstance(text, Preference) and text.chosen == text.rejected and not text.turns


def _held_out(text: TextRow, fraction: float) -> bool:
    digest = hashlib.sha256(prompt_text(text).encode()).digest()
    return int.from_bytes(digest[:8]) < fraction * 2**64


class _Lengths(TypedDict, total=False):
    prompt_tokens: int
    answer_tokens: int
    length: dict[str, float]


def _lengths(rows: Sequence[Row]) -> _Lengths:
    if not rows:
        return {}
    lengths = np.array([row.num_tokens for row in rows])
    answers = sum(len(targets(row)) if row.branches else int(np.sum(row.learn)) for row in rows)
    p50, p95 = np.percentile(lengths, [50, 95])
    stats = {"min": float(lengths.min()), "mean": float(lengths.mean()), "p50": float(p50), "p95": float(p95), "max": float(lengths.max())}
    return {"prompt_tokens": int(lengths.sum()) - answers, "answer_tokens": answers, "length": stats}
