"""Figures of attributes: requested against achieved, leakage beside the data's correlation, which settings the data reach, and a sweep's strip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.rundir.adherence import Adherence, Attribute, Estimate, Level
from workbench.views.figures import LIGHT, Theme, rgba, style

CELL = 46
"""Height in pixels of a matrix's row."""


def achieved(attributes: Sequence[Attribute], theme: Theme = LIGHT, height: int = 340) -> go.Figure:
    """The mean measured rating at each requested one, with its 95 % interval; on the dashed line a request is met."""
    figure = go.Figure()
    levels = sorted({level.requested for each in attributes for level in each.levels})
    if levels:
        ends = [levels[0], levels[-1]]
        line = {"color": theme.muted, "width": 1.5, "dash": "dash"}
        figure.add_scatter(x=ends, y=ends, mode="lines", name="as requested", line=line, hoverinfo="skip")
    _add_levels(figure, attributes, lambda level: level.achieved, "%{customdata[0]} at %{x:g}, %{customdata[1]:,} answers", theme)
    return style(figure, "requested", "measured, mean", theme, height).update_layout(hovermode="closest").update_xaxes(tickvals=levels)


def _add_levels(figure: go.Figure, attributes: Sequence[Attribute], of: Callable[[Level], Estimate], hover: str, theme: Theme) -> None:
    """A line an attribute: an estimate at each requested rating, with its interval."""
    for number, each in enumerate(attributes):
        known = [level for level in each.levels if of(level).value is not None]
        colour = theme.palette[number % len(theme.palette)]
        figure.add_scatter(
            x=[level.requested for level in known],
            y=[of(level).value for level in known],
            error_y={"type": "data", "symmetric": False, "color": colour, "thickness": 1.5, **_arms([of(level) for level in known])},
            mode="lines+markers",
            name=each.name,
            line={"color": colour, "width": 2},
            marker={"size": 8},
            customdata=[[str(of(level)), level.rows] for level in known],
            hovertemplate=hover,
        )


def lengths(attributes: Sequence[Attribute], theme: Theme = LIGHT, height: int = 340) -> go.Figure:
    """The answers' mean length in words at each requested rating, with its 95 % interval."""
    figure = go.Figure()
    _add_levels(figure, attributes, lambda level: level.words, "%{y:.1f} words at %{x:g}", theme)
    return style(figure, "requested", "words in an answer, mean", theme, height).update_layout(hovermode="closest").update_yaxes(rangemode="tozero")


def _arms(estimates: Sequence[Estimate]) -> dict[str, list[float]]:
    """An interval's two arms; none where there is no interval."""
    known = [(each.value or 0.0, each.low, each.high) for each in estimates]
    above = [0.0 if high is None else max(0.0, high - value) for value, _, high in known]
    return {"array": above, "arrayminus": [0.0 if low is None else max(0.0, value - low) for value, low, _ in known]}


def leakage(measured: Adherence, theme: Theme = LIGHT) -> go.Figure:
    """What each request moves, by partial correlation, beside how the ratings correlate in the training data: what stands off the left's diagonal is leakage.

    A cell without a value is unknown; its reason is in the hover text.
    """
    requested = list(measured.leakage)
    columns = list(dict.fromkeys(name for row in measured.leakage.values() for name in row))
    values = [[measured.leakage[a][b].value for b in columns] for a in requested]
    hover = [[f"requested {a}, measured {b}: {measured.leakage[a][b]}" for b in columns] for a in requested]
    data = [name for name in requested if name in measured.correlation]
    titles = ("requested → measured, others held", "training data: ratings")
    figure = make_subplots(1, 2 if data else 1, subplot_titles=titles[: 2 if data else 1], horizontal_spacing=0.18)
    figure.add_trace(_matrix(requested, columns, values, hover, theme), 1, 1)
    if data:
        given = [[measured.correlation[a].get(b) for b in data] for a in data]
        texts = [[f"{a} and {b} in the training rows: {'unknown' if value is None else f'{value:.2f}'}" for b, value in zip(data, row, strict=True)]
                 for a, row in zip(data, given, strict=True)]  # fmt: skip
        figure.add_trace(_matrix(data, data, given, texts, theme), 1, 2)
    figure = style(figure, "", "", theme, 110 + CELL * len(requested)).update_layout(hovermode="closest", margin={"t": 40})
    axis = {"showgrid": False, "zeroline": False, "automargin": True, "tickfont": {"color": theme.muted, "size": 11}}
    return figure.update_xaxes(**axis).update_yaxes(autorange="reversed", **axis).update_annotations(font={"size": 12, "color": theme.muted})


def _matrix(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], hover: Sequence[Sequence[str]], theme: Theme
) -> go.Heatmap:
    texts = [["–" if value is None else f"{value:.2f}" for value in row] for row in values]
    scale = [
        [0, rgba(theme.palette[1], 0.75)],
        [0.5, rgba(theme.palette[1], 0.0)],
        [0.5, rgba(theme.palette[0], 0.0)],
        [1, rgba(theme.palette[0], 0.75)],
    ]
    return go.Heatmap(
        x=list(columns),
        y=list(rows),
        z=[list(row) for row in values],
        text=texts,
        texttemplate="%{text}",
        textfont={"color": theme.ink},
        customdata=[list(row) for row in hover],
        hovertemplate="%{customdata}<extra></extra>",
        zmin=-1,
        zmax=1,
        colorscale=scale,
        showscale=False,
        xgap=2,
        ygap=2,
    )


def reach(levels: Sequence[float], rows: Sequence[int], least: int, chosen: float | None = None, theme: Theme = LIGHT) -> go.Figure:
    """How many training rows each level of a slider has, the others as they are set; those with fewer than `least` are not reachable, and paler.

    `chosen` is where the slider stands.
    """
    colours = [theme.palette[2] if count >= least else rgba(theme.palette[1], 0.45) for count in rows]
    outlines = [theme.ink if level == chosen else "rgba(0,0,0,0)" for level in levels]
    figure = go.Figure(
        go.Bar(
            x=list(levels),
            y=list(rows),
            marker={"color": colours, "line": {"color": outlines, "width": 2}},
            customdata=["reachable" if count >= least else "not reachable" for count in rows],
            hovertemplate="%{x:g}: %{y:,} training rows, %{customdata}<extra></extra>",
        )
    )
    figure.add_hline(y=least, line={"color": theme.muted, "width": 1, "dash": "dash"}, annotation_text=f"{least} rows")
    return style(figure, "level", "training rows near it", theme, 200).update_xaxes(tickvals=list(levels))


def strip(
    name: str, levels: Sequence[float], measured: Mapping[str, Sequence[float | None]], lowest: float, highest: float, theme: Theme = LIGHT
) -> go.Figure:
    """A sweep of one slider: the measured rating of each attribute at each requested level of `name`, the swept one first."""
    names = [name, *(other for other in measured if other != name)] if name in measured else list(measured)
    values = [list(measured[other]) for other in names]
    figure = go.Figure(
        go.Heatmap(
            x=[f"{level:g}" for level in levels],
            y=names,
            z=values,
            text=[["–" if value is None else f"{value:.1f}" for value in row] for row in values],
            texttemplate="%{text}",
            textfont={"color": theme.ink},
            hovertemplate="%{y} %{text} at " + name + " %{x}<extra></extra>",
            zmin=lowest,
            zmax=highest,
            colorscale=[[0, rgba(theme.palette[0], 0.04)], [1, rgba(theme.palette[0], 0.7)]],
            showscale=False,
            xgap=3,
            ygap=3,
        )
    )
    figure = style(figure, f"requested {name}", "", theme, 70 + CELL * max(1, len(names))).update_layout(hovermode="closest")
    return figure.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(type="category")
