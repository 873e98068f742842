"""Look at a data set before training on it: what `workbench data check` prints and the Datasets page draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workbench.data.chat import Chat, Encoded, TooLong
from workbench.data.chat import Piece as Tokens
from workbench.data.dataset import encoded, fingerprint, fit, prompt_text
from workbench.data.limits import Limits
from workbench.data.packing import Row, targets
from workbench.data.readers import Changes, DataError, Kind, Rows, read
from workbench.data.rows import Malformed, Preference, PromptOnly, Rated, TextRow, Unpaired
from workbench.data.tokenizer import decode

BINS = 30
SAMPLES = 3
BAD_SHOWN = 100
SHOWN_CHARACTERS = 200_000
"""A row with more is counted and not shown."""


class Bad(BaseModel):
    where: str
    expected: str
    found: str


class Piece(BaseModel):
    """Consecutive text of one origin; `learnt` says whether the loss counts its tokens."""

    text: str
    role: str
    learnt: bool


class Sample(BaseModel):
    """One row as training sees it: its text in pieces (for a pair: the prompt's, then both answers'). `note` is what the row says of its answer."""

    where: str
    tokens: int
    pieces: list[Piece]
    chosen: list[Piece] | None = None
    rejected: list[Piece] | None = None
    note: str = ""


class CheckReport(BaseModel):
    """What there is to know of a source. Lengths are in tokens: prompt and the longer answer."""

    source: str
    kind: Kind
    format: str
    rows: int
    readable: int
    """Rows that were read, whether the model's chat template takes them or not: as many can be paged through."""
    bad: int
    bad_rows: list[Bad]
    too_long: int
    max_length: int
    duplicates: int
    repeated_prompts: int
    identical_pairs: int
    prompt_tokens: int
    answer_tokens: int
    percentiles: dict[str, float]
    histogram: list[tuple[int, int, int]]
    """(from, to, rows) of each bin; `to` is exclusive."""
    samples: list[Sample]
    notes: list[str] = []
    """What is not read, and what is likely not meant, in a sentence each."""
    refused: str = ""
    """What a run says that refuses these rows; empty where it takes them."""


class Page(BaseModel):
    """Some rows of a source, in its order."""

    total: int
    offset: int
    rows: list[Sample]


def check(
    source: str,
    kind: Kind,
    chat: Chat,
    format: str = "auto",
    max_length: int = 1024,
    limits: Limits | None = None,
    changes: Changes | None = None,
    on_bad_row: str = "error",
) -> CheckReport:
    """Read everything, skip nothing silently. `on_bad_row` decides what `refused` says.

    Raises:
        DataError: there is no such source, or not one good row in it.
    """
    given = read(source, kind, format, on_bad_row="skip", limits=limits, changes=changes)
    rows, tokens = encoded(given, chat, max_length)
    notes = [*rows.notes, *chat.notes]
    rows.refuse(source, "skip")
    whole = [(text, row.row) for text, row in zip(rows.rows, tokens, strict=True) if isinstance(row, Encoded)]
    cut = len(tokens) - len(whole)
    lengths = np.array([_length(row) for row in tokens])
    answers = sum(_answer_tokens(row) for _, row in whole)
    counts: Counter[str] = Counter(dropped=cut)
    for text, row in whole:
        fit(row, max_length, "drop", text.where, counts)
    edges = np.unique(np.linspace(0, lengths.max() + 1, BINS + 1).astype(int))
    heights, _ = np.histogram(lengths, edges)
    return CheckReport(
        source=source,
        kind=kind,
        format=rows.format,
        rows=len(rows.rows),
        readable=len(given.rows),
        bad=rows.num_bad,
        bad_rows=[Bad(where=b.where, expected=b.expected, found=b.found) for b in rows.bad[:BAD_SHOWN]],
        too_long=counts["dropped"],
        max_length=max_length,
        duplicates=_repeats([fingerprint(text) for text in rows.rows]),
        repeated_prompts=_repeats([prompt_text(text) for text in rows.rows]),
        identical_pairs=sum(isinstance(text, Preference) and text.chosen == text.rejected and not text.turns for text in rows.rows),
        prompt_tokens=sum(row.num_tokens for _, row in whole) - answers,
        answer_tokens=answers,
        percentiles={f"p{p}": float(np.percentile(lengths, p)) for p in (0, 50, 90, 95, 99, 100)},
        histogram=[(int(a), int(b), int(n)) for a, b, n in zip(edges[:-1], edges[1:], heights, strict=True)],
        samples=[sample(text, chat) for text in rows.rows[:SAMPLES]],
        notes=[*notes, *([f"{cut:,} rows are so long that only their beginning was counted, in lengths and tokens"] if cut else [])],
        refused=_refused(rows, source, on_bad_row),
    )


def browse(
    source: str,
    kind: Kind,
    chat: Chat,
    offset: int,
    count: int,
    format: str = "auto",
    limits: Limits | None = None,
    changes: Changes | None = None,
) -> Page:
    """Rows `offset` to `offset + count` of those that could be read, with their loss mask, or with why they have none."""
    rows = read(source, kind, format, on_bad_row="skip", limits=limits, changes=changes).rows
    return Page(total=len(rows), offset=offset, rows=[sample(text, chat) for text in rows[offset : offset + count]])


def sample(text: TextRow, chat: Chat) -> Sample:
    """A row as the tokens that training sees, decoded again; its note says where there are none, or too many to show."""
    turns = [turn for each in text.turns for turn in each[:-1]] if isinstance(text, Preference) else []
    characters = sum(len(turn.content) for turn in (*text.prompt, *turns)) + sum(map(len, text.answers))
    if characters > SHOWN_CHARACTERS:
        return Sample(where=text.where, tokens=0, pieces=[], note=f"{characters:,} characters: too long to show")
    (result,) = chat.encode([text])
    if isinstance(result, Malformed):
        return Sample(where=text.where, tokens=0, pieces=[], note=f"malformed: expected {result.args[0]}; found {result.args[1]}")
    parts = chat.pieces(text)
    prompt, *answers = ([_piece(piece, chat) for piece in pieces] for pieces in parts)
    tokens = sum(len(piece.tokens) for pieces in parts for piece in pieces)
    if isinstance(text, Preference):
        return Sample(where=text.where, tokens=tokens, pieces=prompt, chosen=answers[0], rejected=answers[1])
    if isinstance(text, Rated | Unpaired):
        return Sample(where=text.where, tokens=tokens, pieces=[*prompt, *answers[0]], note=_note(text))
    note = ", ".join(f"{name}: {value[:80]}" for name, value in text.columns.items()) if isinstance(text, PromptOnly) else ""
    return Sample(where=text.where, tokens=tokens, pieces=prompt, note=note)


def render(report: CheckReport, console: Console) -> None:
    """A table of counts, the lengths as bars, the first bad rows and a row with what is learnt in green."""
    table = Table(box=None, show_header=False)
    for name, value in (
        ("rows", f"{report.rows:,} ({report.format}, read as {report.kind})"),
        ("malformed", f"{report.bad:,}"),
        (f"over {report.max_length} tokens", f"{report.too_long:,}"),
        ("duplicates", f"{report.duplicates:,}; prompts that come again: {report.repeated_prompts:,}"),
        ("identical pairs", f"{report.identical_pairs:,}"),
        ("tokens", f"{report.prompt_tokens:,} in prompts, {report.answer_tokens:,} learnt"),
        ("length", ", ".join(f"{name} {value:,.0f}" for name, value in report.percentiles.items())),
    ):
        table.add_row(name, value)
    console.print(table)
    console.print("\nlength in tokens", style="dim")
    tallest = max(n for _, _, n in report.histogram)
    for start, end, n in report.histogram:
        console.print(f"{start:>6}-{end - 1:<6} [blue]{'█' * round(40 * n / tallest)}[/] {n:,}", highlight=False)
    for bad in report.bad_rows[:10]:
        console.print(f"[red]{bad.where}[/]", highlight=False)
        console.print(f"    expected {bad.expected}\n    found    {bad.found}", markup=False, highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", style="yellow", markup=False, highlight=False)
    if report.samples:
        first = report.samples[0]
        note = f" ({first.note})" if first.note else ""
        console.print(f"\n{first.where}{note}: what is learnt is green", style="dim", markup=False)
        for pieces in (first.pieces, first.chosen, first.rejected):
            console.print(Text.assemble(*((piece.text, "green" if piece.learnt else "") for piece in pieces or [])))
    if report.refused:
        console.print(f"\na run refuses this: {report.refused}", style="red", markup=False, highlight=False)


def _refused(rows: Rows, source: str, on_bad_row: str) -> str:
    try:
        rows.refuse(source, on_bad_row)
    except DataError as error:
        return str(error)
    return ""


def _note(text: Rated | Unpaired) -> str:
    if isinstance(text, Rated):
        return ", ".join(f"{name} {value:g}" for name, value in text.attributes.items())
    return "desirable" if text.desirable else "undesirable"


def _length(row: Encoded | TooLong) -> int:
    return row.tokens if isinstance(row, TooLong) else len(row.row.prefix) + max(map(len, row.row.branches), default=0)


def _answer_tokens(row: Row) -> int:
    return len(targets(row)) if row.branches else int(np.sum(row.learn))


def _repeats(keys: Sequence[Hashable]) -> int:
    return len(keys) - len(set(keys))


def _piece(piece: Tokens, chat: Chat) -> Piece:
    return Piece(text=decode(chat.tokenizer, piece.tokens), role=piece.role, learnt=piece.learn)
