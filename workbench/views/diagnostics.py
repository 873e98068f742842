"""Figures of a reward model's diagnostics, as `workbench.monitoring.score_diagnostics` makes them and a validation event carries them."""

from __future__ import annotations

import itertools

import plotly.graph_objects as go

from workbench.rundir.lines import Diagnostics, Ratings
from workbench.views.figures import LIGHT, Theme, rgba, style

SIDES = ("chosen", "rejected")


def calibration(values: Diagnostics, theme: Theme = LIGHT) -> go.Figure:
    """How often the preferred answer scores higher against how sure the model is of it; on the dashed line it is as sure as it may be."""
    bins = values["calibration"]
    largest = max((b["count"] for b in bins), default=1)
    figure = go.Figure()
    figure.add_scatter(
        x=[0.5, 1], y=[0.5, 1], mode="lines", name="calibrated", line={"color": theme.muted, "width": 1.5, "dash": "dash"}, hoverinfo="skip"
    )
    figure.add_scatter(
        x=[b["predicted"] for b in bins],
        y=[b["observed"] for b in bins],
        mode="lines+markers",
        name="held-out pairs",
        line={"color": theme.palette[0], "width": 2},
        marker={"size": [8 + 14 * (b["count"] / largest) ** 0.5 for b in bins], "color": theme.palette[0]},
        customdata=[b["count"] for b in bins],
        hovertemplate="%{y:.1%} right at %{x:.1%} sure, %{customdata:,} pairs<extra></extra>",
    )
    figure = style(figure, "how sure: sigmoid of the score difference", "share of pairs ordered right", theme, 320)
    return (
        figure.update_layout(hovermode="closest")
        .update_xaxes(range=[0.48, 1.02], tickformat=".0%")
        .update_yaxes(range=[-0.03, 1.05], tickformat=".0%")
    )


def histogram(values: Diagnostics, theme: Theme = LIGHT) -> go.Figure:
    """The scores of the chosen and of the rejected answers, laid over each other."""
    edges = values["histogram"]["edges"]
    middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    widths = [high - low for low, high in itertools.pairwise(edges)]
    figure = go.Figure()
    counts_of = values["histogram"]["chosen"], values["histogram"]["rejected"]
    for side, counts, colour in zip(SIDES, counts_of, _colours(theme), strict=True):
        figure.add_bar(
            x=middles,
            y=counts,
            width=widths,
            name=side,
            marker={"color": colour, "line": {"width": 0}},
            opacity=0.6,
            hovertemplate="%{y:,}",
        )
    return style(figure, "score", "answers", theme, 320).update_layout(barmode="overlay", bargap=0)


def lengths(values: Diagnostics, theme: Theme = LIGHT) -> go.Figure:
    """Score against length: a slope is a bias towards long, or short, answers."""
    points = values["lengths"]
    figure = go.Figure()
    for side, colour, symbol in zip(SIDES, _colours(theme), ("circle", "diamond-open"), strict=True):
        here = [i for i, chosen in enumerate(points["chosen"]) if chosen == (side == "chosen")]
        figure.add_scatter(
            x=[points["tokens"][i] for i in here],
            y=[points["scores"][i] for i in here],
            mode="markers",
            name=side,
            marker={"color": colour, "symbol": symbol, "size": 6},
            opacity=0.65,
            hovertemplate="%{x:,} tokens: %{y:.3g}",
        )
    return style(figure, "tokens in the answer", "score", theme, 320).update_layout(hovermode="closest")


def ratings(attribute: Ratings, theme: Theme = LIGHT) -> go.Figure:
    """One attribute's predicted ratings against the people's, and the means of bins of the prediction; on the dashed line they are equal."""
    actual, predicted = attribute["actual"], attribute["predicted"]
    ends = [min(actual), max(actual)]
    figure = go.Figure()
    figure.add_scatter(x=ends, y=ends, mode="lines", name="equal", line={"color": theme.muted, "width": 1.5, "dash": "dash"}, hoverinfo="skip")
    figure.add_scatter(
        x=actual,
        y=predicted,
        mode="markers",
        name="held-out answers",
        marker={"color": theme.palette[0], "size": 6},
        opacity=0.5,
        hovertemplate="rated %{x:g}, predicted %{y:.2f}<extra></extra>",
    )
    if bins := attribute.get("bins"):
        figure.add_scatter(
            x=[b["observed"] for b in bins],
            y=[b["predicted"] for b in bins],
            mode="markers",
            name="means of bins",
            marker={"color": theme.palette[1], "size": 10, "symbol": "diamond", "line": {"color": theme.surface, "width": 1}},
            customdata=[b["count"] for b in bins],
            hovertemplate="mean rating %{x:.2f}, mean prediction %{y:.2f}, %{customdata:,} answers<extra></extra>",
        )
    return style(figure, f"{attribute['name']}: rated", "predicted", theme, 280).update_layout(hovermode="closest")


def reliability(attribute: Ratings, theme: Theme = LIGHT) -> go.Figure:
    """How often the likeliest level is the given one against how likely it is; on the dashed line an ordinal head is as sure as it may be."""
    bins = attribute.get("calibration", [])
    largest = max((b["count"] for b in bins), default=1)
    figure = go.Figure()
    line = {"color": theme.muted, "width": 1.5, "dash": "dash"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="calibrated", line=line, hoverinfo="skip")
    figure.add_scatter(
        x=[b["predicted"] for b in bins],
        y=[b["observed"] for b in bins],
        mode="lines+markers",
        name="held-out answers",
        line={"color": theme.palette[0], "width": 2},
        marker={"size": [8 + 14 * (b["count"] / largest) ** 0.5 for b in bins], "color": theme.palette[0]},
        customdata=[b["count"] for b in bins],
        hovertemplate="%{y:.1%} right at %{x:.1%}, %{customdata:,} answers<extra></extra>",
    )
    figure = style(figure, f"{attribute['name']}: probability of the likeliest level", "share right", theme, 280).update_layout(hovermode="closest")
    return figure.update_xaxes(range=[-0.03, 1.05], tickformat=".0%").update_yaxes(range=[-0.03, 1.05], tickformat=".0%")


def confusion(attribute: Ratings, theme: Theme = LIGHT) -> go.Figure:
    """Of the answers that were rated a level, the shares of each likeliest level; all on the diagonal is never wrong. No answers: an empty row."""
    table = attribute.get("confusion")
    levels, counts = (table["levels"], table["counts"]) if table else ([], [])
    totals = [sum(row) for row in counts]
    shares = [[count / total if total else None for count in row] for row, total in zip(counts, totals, strict=True)]
    figure = go.Figure(
        go.Heatmap(
            x=[f"{level}" for level in levels],
            y=[f"{level}" for level in levels],
            z=shares,
            text=[[f"{count:g}" for count in row] for row in counts],
            texttemplate="%{text}",
            textfont={"color": theme.ink},
            hovertemplate="rated %{y}, likeliest %{x}: %{text} answers, %{z:.0%}<extra></extra>",
            zmin=0,
            zmax=1,
            colorscale=[[0, rgba(theme.palette[0], 0.0)], [1, rgba(theme.palette[0], 0.7)]],
            showscale=False,
            xgap=2,
            ygap=2,
        )
    )
    figure = style(figure, f"{attribute['name']}: likeliest level", "rated", theme, 280).update_layout(hovermode="closest")
    return figure.update_xaxes(type="category").update_yaxes(type="category", showgrid=False)


def _colours(theme: Theme) -> tuple[str, str]:
    return theme.palette[2], theme.palette[1]
