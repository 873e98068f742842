"""A data set before it is trained on: its counts, its lengths, and its rows with what is learnt in colour."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from workbench.data.check import CheckReport, Piece, Sample
from workbench.data.readers import Kind
from workbench.views import pictures, text
from workbench.views.text import Figure

KINDS: dict[Kind, str] = {
    "preference": "Preference pairs",
    "conversation": "Conversations",
    "rated": "Rated answers",
    "conditioned": "Conversations with ratings",
    "unpaired": "Unpaired answers",
    "group": "Groups of sampled answers",
    "answered": "Answers",
    "taught": "Tokens with a teacher's probabilities",
    "prompt": "Prompts",
}
ROWS_A_PAGE = 10
LEARNT, REJECTED = "#0f8a6c", "#c2571a"
LEGEND = "Tokens in the loss are highlighted; the others are context."
ROW = "font:13px/1.75 var(--jp-code-font-family,monospace);white-space:pre-wrap;overflow-wrap:anywhere"


def headline(report: CheckReport) -> tuple[Figure, ...]:
    """The counts that stand above everything else."""
    learnt = report.answer_tokens / max(1, report.answer_tokens + report.prompt_tokens)
    return (
        Figure("Rows", f"{report.rows:,}", report.format),
        Figure("Malformed", f"{report.bad:,}", "left out" if report.bad else "none"),
        Figure(f"Over {report.max_length:,} tokens", f"{report.too_long:,}", f"longest {report.percentiles['p100']:,.0f}"),
        Figure("Duplicates", f"{report.duplicates:,}", f"{report.repeated_prompts:,} prompts repeat"),
        Figure("Identical pairs", f"{report.identical_pairs:,}", "chosen = rejected"),
        Figure("Tokens in the loss", f"{report.answer_tokens:,}", f"{learnt:.0%} of all"),
    )


def percentiles(report: CheckReport) -> str:
    """How long the rows are, in a line."""
    names = {"p0": "shortest", "p50": "median", "p100": "longest"}
    return " · ".join(f"{names.get(name, f'{name[1:]} % up to')} {value:,.0f}" for name, value in report.percentiles.items())


def malformed(report: CheckReport, listed: int) -> str:
    """How many of the malformed rows are listed, and what a run does with them."""
    return f"{listed:,} of {report.bad:,}. A run refuses such a file, or leaves these rows out with `data.on_bad_row=skip`."


def refusal(report: CheckReport) -> str:
    """That a run refuses the rows, and why, in a line."""
    return f"A run refuses this file: {report.refused.partition(chr(10))[0].rstrip(':')}."


def pages(rows: int) -> int:
    """How many pages the rows of a data set fill."""
    return max(1, -(-rows // ROWS_A_PAGE))


def length_of(row: Sample) -> str:
    """A row's length; of a pair that of its prompt and both answers."""
    return f"{row.tokens:,} tokens{' in all' if row.chosen else ''}"


def spans(pieces: Sequence[Piece], rejected: bool = False) -> str:
    """Escaped text; the template's own is faint, what is learnt is marked."""
    colour = REJECTED if rejected else LEARNT
    marked = f'<mark style="background:color-mix(in srgb, {colour} 20%, transparent);color:inherit;border-radius:3px">'
    drawn = []
    for piece in pieces:
        shown = html.escape(piece.text)
        drawn.append(f"{marked}{shown}</mark>" if piece.learnt else shown if piece.role else f'<span style="opacity:.45">{shown}</span>')
    return "".join(drawn)


def row(sample: Sample) -> str:
    """A row on its own: where it stands, its length, its text, and both answers of a pair side by side."""
    note = f" · {html.escape(text.visible(sample.note))}" if sample.note else ""
    head = f'<div style="opacity:.65;font-size:11.5px"><code>{html.escape(Path(sample.where).name)}</code> · {length_of(sample)}{note}</div>'
    answers = ""
    if sample.chosen is not None and sample.rejected is not None:
        both = (("Chosen", spans(sample.chosen)), ("Rejected", spans(sample.rejected, rejected=True)))
        answers = "".join(f'<div style="flex:1 1 280px"><b>{label}</b><div style="{ROW}">{shown}</div></div>' for label, shown in both)
        answers = f'<div style="display:flex;flex-wrap:wrap;gap:4px 18px">{answers}</div>'
    frame = "border:1px solid color-mix(in srgb,currentColor 15%,transparent);border-radius:6px;padding:6px 10px;margin:6px 0"
    return f'<div style="{frame}">{head}<div style="{ROW}">{spans(sample.pieces)}</div>{answers}</div>'


def rows(samples: Sequence[Sample]) -> str:
    """Some rows, one below the other."""
    return f'<div style="{pictures.FONT}"><div style="opacity:.65;font-size:12px">{LEGEND}</div>{"".join(map(row, samples))}</div>'


def lengths(report: CheckReport) -> str:
    """A histogram of the rows' lengths as SVG, and their percentiles."""
    bars = pictures.bars([(f"{start}–{end - 1}", count) for start, end, count in report.histogram], "Length", "tokens in a row")
    return f'{pictures.beside([bars])}<div style="{pictures.FONT};opacity:.65;font-size:12px">{percentiles(report)}</div>'


def malformed_table(report: CheckReport, most: int | None = None) -> str:
    """The first malformed rows, each with its place as file:line."""
    listed = [each.model_dump(include={"where", "expected", "found"}) for each in report.bad_rows[:most]]
    return pictures.table(listed, malformed(report, len(listed)) if listed else "Every row is valid.")


def picture(report: CheckReport, bad_rows: int = 10) -> str:
    """What there is to know of a data set as HTML: counts, lengths, and the first malformed rows with their place."""
    counts = pictures.table([{figure.label: figure.value for figure in headline(report)}], f"{report.source}, read as {KINDS[report.kind].lower()}")
    said = [refusal(report)] if report.refused else []
    listed = "".join(f"<li>{html.escape(text.visible(each))}</li>" for each in (*said, *report.notes))
    counts += f'<ul style="{pictures.FONT}">{listed}</ul>' if listed else ""
    return counts + lengths(report) + malformed_table(report, bad_rows)
