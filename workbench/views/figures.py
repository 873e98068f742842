"""Plotly figures that look the same in the app and in a notebook, on a light and on a dark page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from workbench.views import catalogue, series
from workbench.views.history import History

Axis = Literal["step", "time"]
AXIS_TITLES = {"step": "step", "time": "training time (minutes)"}


@dataclass(frozen=True)
class Theme:
    """The colours of one page."""

    ink: str
    muted: str
    grid: str
    surface: str
    palette: tuple[str, ...]


LIGHT = Theme("#111827", "#5b6472", "#e9ecf1", "#ffffff", ("#3b5bdb", "#c2571a", "#0f8a6c", "#8a3ffc", "#b0226b", "#0b7fab", "#7a6a00", "#5b6472"))
DARK = Theme("#e7eaf0", "#98a2b3", "#262d37", "#0e1116", ("#8da2fb", "#f5a05f", "#3fc79f", "#c39bff", "#f27bb0", "#4cc3e8", "#d8c24a", "#98a2b3"))
DASHES = ("solid", "dash", "dot", "dashdot")


def compare(
    histories: Mapping[str, History], metric: str, smoothing: float = 0.0, axis: Axis = "step", held_out: bool = False, theme: Theme = LIGHT
) -> go.Figure:
    """One metric of several runs over steps or training minutes; past the palette's end, dashes tell the runs apart."""
    figure = go.Figure()
    for number, (name, history) in enumerate(histories.items()):
        x, y = curve(history, metric, axis, held_out)
        colour = theme.palette[number % len(theme.palette)]
        dash = DASHES[number // len(theme.palette) % len(DASHES)]
        if smoothing and not held_out:
            keep = series.thin(y)
            figure.add_scatter(
                x=x[keep], y=y[keep], mode="lines", line={"width": 1, "color": colour}, opacity=0.22, hoverinfo="skip", showlegend=False
            )
            y = series.ema(y, smoothing)
        keep = series.thin(y)
        mode = "lines+markers" if held_out else "lines"
        figure.add_scatter(x=x[keep], y=y[keep], mode=mode, name=name, line={"width": 2, "color": colour, "dash": dash}, hovertemplate="%{y:.4g}")
    return style(figure, AXIS_TITLES[axis], axis_title(metric), theme)


def curve(history: History, metric: str, axis: Axis = "step", held_out: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """x and y of one metric; x in steps or in minutes of training."""
    frame = history.validation_frame() if held_out else history.frame()
    if metric not in frame:
        return np.array([]), np.array([])
    frame = frame.dropna(subset=[metric]) if held_out else frame
    x = frame["step"] if axis == "step" else frame["elapsed_s"] / 60
    return x.to_numpy(), frame[metric].to_numpy(dtype=float)


def lengths(edges: Sequence[float], counts: Sequence[int], limit: int | None = None, theme: Theme = LIGHT) -> go.Figure:
    """How long the rows of a data set are, in tokens; a line marks the longest that is kept."""
    middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    widths = [(high - low) * 0.94 for low, high in itertools.pairwise(edges)]
    spans = [f"{low:g}–{high:g}" for low, high in itertools.pairwise(edges)]
    figure = go.Figure(
        go.Bar(
            x=middles,
            y=list(counts),
            width=widths,
            marker={"color": theme.palette[0]},
            customdata=spans,
            hovertemplate="%{customdata} tokens: %{y:,} rows<extra></extra>",
        )
    )
    if limit:
        figure.add_vline(x=limit, line={"color": theme.palette[1], "width": 1.5, "dash": "dash"}, annotation_text=f"max_length {limit}")
    return style(figure, "tokens in a row", "rows", theme)


def axis_title(metric: str) -> str:
    unit = catalogue.unit(metric)
    return f"{catalogue.label(metric)} ({unit})" if unit else catalogue.label(metric)


def rgba(colour: str, opacity: float) -> str:
    """`#rrggbb` with an opacity, as CSS has it."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity:.3f})"


def style(figure: go.Figure, x_title: str, y_title: str, theme: Theme, height: int = 380) -> go.Figure:
    """The frame all our figures share."""
    axis = {"gridcolor": theme.grid, "linecolor": theme.grid, "zeroline": False, "automargin": True, "tickfont": {"color": theme.muted, "size": 11}}
    title = {"font": {"color": theme.muted, "size": 12}, "standoff": 10}
    return figure.update_layout(
        template="none",
        height=height,
        margin={"l": 56, "r": 12, "t": 12, "b": 44},
        font={"family": "Inter, system-ui, sans-serif", "size": 12, "color": theme.ink},
        xaxis={**axis, "showgrid": False, "title": {"text": x_title, **title}},
        yaxis={**axis, "title": {"text": y_title, **title}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="x unified",
        hoverlabel={"bgcolor": theme.surface, "bordercolor": theme.grid, "font": {"color": theme.ink, "size": 12}},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        uirevision="keep",
    )
