"""Rated answers as a figure and as rows of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from workbench.views.figures import LIGHT, Theme, style

Rows = Sequence[Mapping[str, object]]
"""Lines of annotated.jsonl."""


def attributes(rows: Rows) -> list[str]:
    """The attributes that any of the answers is rated for, in their order."""
    return list(dict.fromkeys(name for row in rows for name in _ratings(row)))


def ratings(rows: Rows, theme: Theme = LIGHT) -> go.Figure:
    """How many answers have each rating, by attribute."""
    figure = go.Figure()
    for number, name in enumerate(attributes(rows)):
        counts = Counter(value for row in rows if isinstance(value := _ratings(row).get(name), int | float))
        levels = sorted(counts)
        figure.add_bar(
            x=levels,
            y=[counts[level] for level in levels],
            name=name,
            marker={"color": theme.palette[number % len(theme.palette)]},
            hovertemplate=f"{name} %{{x:g}}: %{{y:,}} answers<extra></extra>",
        )
    return style(figure, "rating", "answers", theme, 300).update_layout(barmode="group", hovermode="closest")


def table(rows: Rows) -> list[dict[str, object]]:
    """The prompt, the answer, the requested ratings where there are some, and each rating in a column of its own."""
    names = attributes(rows)
    return [
        {"Prompt": _question(row), "Answer": row.get("response", ""), **_asked(row), **{name: _ratings(row).get(name) for name in names}}
        for row in rows
    ]


def _ratings(row: Mapping[str, object]) -> Mapping[str, object]:
    given = row.get("attributes")
    return given if isinstance(given, Mapping) else {}


def _question(row: Mapping[str, object]) -> str:
    prompt = row.get("prompt")
    last = prompt[-1] if isinstance(prompt, list) and prompt else {}
    return str(last.get("content", "")) if isinstance(last, Mapping) else ""


def _asked(row: Mapping[str, object]) -> dict[str, object]:
    requested = row.get("requested")
    return {"Requested": ", ".join(f"{name} {value:g}" for name, value in requested.items())} if isinstance(requested, Mapping) else {}
