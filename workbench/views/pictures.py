"""Static pictures of a run as SVG and HTML: what a saved notebook keeps, with no script. Lines and texts have the colour of the page they are on."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.rundir.store import State, Status
from workbench.views import catalogue, series, tables, text
from workbench.views.figures import LIGHT
from workbench.views.history import History

WIDTH, HEIGHT = 300, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 22
POINTS = 240
TICKS = 4
FONT = "font-family:system-ui,sans-serif"
COLOURS = {"gray": "#5b6472", "blue": "#3b5bdb", "green": "#0f7a60", "orange": "#b04a12", "red": "#c2343f"}


@dataclass(frozen=True)
class Line:
    """One line of a picture: x and y of the same length, y may have NaN; `dots` marks each point, as few have to be seen."""

    label: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    dots: bool = False


def curve(lines: Sequence[Line], title: str = "", unit: str = "") -> str:
    """An SVG of some lines over one axis, with ticks; the newest value of each in its legend. Empty where no line has a finite point."""
    known = [(number, line, *_finite(line)) for number, line in enumerate(lines)]
    known = [each for each in known if len(each[2])]
    if not known:
        return ""
    across, up = _scale([x for _, _, x, _ in known], LEFT, WIDTH - RIGHT), _scale([y for _, _, _, y in known], HEIGHT - BOTTOM, TOP)
    drawn = "".join(_drawn(number, line, x, y, across, up) for number, line, x, y in known)
    legend = "".join(_legend(number, line.label if len(lines) > 1 else "", line.y[-1]) for number, line, *_ in known)
    newest = f"{title}: " + ", ".join(f"{line.label} {text.number(float(line.y[-1]))}" for _, line, *_ in known)
    return _figure(title, unit, legend, newest, _axis(up) + _steps(across) + drawn)


def _figure(title: str, unit: str, legend: str, described: str, drawn: str) -> str:
    measured_in = f' <span style="opacity:.65">{html.escape(unit)}</span>' if unit else ""
    head = f"<b>{html.escape(text.visible(title))}</b>{measured_in}{legend}"
    style = f"width:100%;{FONT};font-size:9.5px"
    svg = f'<svg role="img" aria-label="{html.escape(described, quote=True)}" viewBox="0 0 {WIDTH} {HEIGHT}" style="{style}">{drawn}</svg>'
    return f'<figure style="margin:0;flex:1 1 260px;max-width:420px;{FONT};font-size:12px;line-height:1.5">{head}{svg}</figure>'


def bars(counts: Sequence[tuple[str, int]], title: str = "", unit: str = "") -> str:
    """An SVG of counts by name, a bar each, with the number in its tooltip; empty where there are none."""
    tallest = max((count for _, count in counts), default=0)
    if not tallest:
        return ""
    width = (WIDTH - LEFT - RIGHT) / len(counts)
    up = _Scale(0, tallest, HEIGHT - BOTTOM, TOP)
    drawn = "".join(
        f'<rect x="{LEFT + index * width:.1f}" y="{up(count):.1f}" width="{width * 0.92:.1f}" height="{HEIGHT - BOTTOM - up(count):.1f}" '
        f'fill="{LIGHT.palette[0]}"><title>{html.escape(name)}: {count:,}</title></rect>'
        for index, (name, count) in enumerate(counts)
    )
    first, last = html.escape(counts[0][0]), html.escape(counts[-1][0])
    below = "".join(
        f'<text x="{x}" y="{HEIGHT - 8}" text-anchor="{anchor}" fill="currentColor" opacity=".7">{name}</text>'
        for x, anchor, name in ((LEFT, "start", first), (WIDTH - RIGHT, "end", last))
    )
    return _figure(title, unit, "", f"{title}: {len(counts)} bars, at most {tallest:,}", _axis(up) + drawn + below)


def curves(history: History, limit: int = 6) -> str:
    """The first charts of a run, as its page has them, side by side."""
    figures = []
    for chart in catalogue.charts([*history.metrics, *history.validation_metrics]):
        lines = [Line(label, history.steps, history.metrics[metric]) for metric, label in chart.series if metric in history.metrics]
        held = [(label, [(v.step, v.metrics[m]) for v in history.validations if m in v.metrics]) for m, label in chart.series]
        several = len(chart.series) > 1
        lines += [Line(f"{label}, held out" if several else "held out", *zip(*points, strict=True), dots=True) for label, points in held if points]
        if picture := curve(lines, chart.title, chart.unit):
            figures.append(picture)
        if len(figures) == limit:
            break
    return beside(figures)


def beside(figures: Iterable[str]) -> str:
    """Pictures side by side, as many as fit in a row."""
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px 18px">{"".join(figures)}</div>'


def badge(state: State) -> str:
    """A run's state, in its colour."""
    return f'<span style="background:{COLOURS[text.STATE_COLOURS[state]]};color:#fff;border-radius:9px;padding:1px 8px;font-size:11px">{state}</span>'


def spark(values: Sequence[float]) -> str:
    """A small line without axes; empty for fewer than two finite values."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    points = [(index * 96 / (len(finite) - 1), 19 - 18 * (value - low) / ((high - low) or 1.0)) for index, value in enumerate(finite)]
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<svg viewBox="0 0 96 20" width="96" height="20"><polyline points="{way}" fill="none" stroke="{LIGHT.palette[0]}" stroke-width="1.4"/></svg>'
    )


def progress(share: float) -> str:
    """A bar, from 0 to 1."""
    width = 100 * min(1.0, max(0.0, share))
    filled = f'<div style="width:{width:.1f}%;height:100%;background:#3b5bdb"></div>'
    return f'<div style="height:4px;border-radius:2px;background:color-mix(in srgb,currentColor 15%,transparent);overflow:hidden;margin:6px 0">{filled}</div>'


def run(name: str, run_id: str, history: History, status: Status, link: str = "", limit: int = 6) -> str:
    """A run on one card: state, progress, headline and curves."""
    total = history.total_steps or status.total_steps
    step = history.steps[-1] if history.steps else status.step
    title = f"<b>{html.escape(text.visible(name))}</b> {badge(status.state)} <code>{html.escape(run_id)}</code>"
    if link:
        title += f' <a href="{html.escape(link, quote=True)}" target="_blank" rel="noopener">open its page</a>'
    message = "" if not status.message else f'<pre style="white-space:pre-wrap;margin:4px 0">{html.escape(text.visible(status.message))}</pre>'
    figures = "".join(
        f'<div><div style="opacity:.65;font-size:11px">{html.escape(each.label)}</div><b>{html.escape(each.value)}</b>'
        f' <span style="opacity:.65;font-size:11px">{html.escape(each.note)}</span></div>'
        for each in tables.headline(history, status)
    )
    headline = f'<div style="display:flex;flex-wrap:wrap;gap:6px 22px;margin:6px 0">{figures}</div>'
    bar = progress(step / total) if total and not status.state.ended else ""
    return f'<div style="{FONT};font-size:13px;line-height:1.5">{title}{bar}{message}{headline}{curves(history, limit)}</div>'


def table(rows: Sequence[Mapping[str, object]], caption: str = "") -> str:
    """Rows as an HTML table; everything in them is escaped. A value of type `Html` is taken as it is."""
    if not rows:
        return f'<p style="{FONT};opacity:.65">{html.escape(caption)}</p>'
    head = "".join(f'<th scope="col" style="text-align:left;padding:2px 10px 2px 0">{html.escape(str(name))}</th>' for name in rows[0])
    body = "".join(f"<tr>{''.join(_cell(value) for value in row.values())}</tr>" for row in rows)
    above = f'<caption style="text-align:left;opacity:.65">{html.escape(caption)}</caption>' if caption else ""
    return f'<table style="{FONT};font-size:12.5px;border-collapse:collapse">{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


class Html(str):
    """A text that is HTML already."""


def _cell(value: object) -> str:
    shown = value if isinstance(value, Html) else html.escape(text.visible("" if value is None else str(value)))
    return f'<td style="text-align:left;padding:2px 10px 2px 0;vertical-align:top">{shown}</td>'


def _finite(line: Line) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
    keep = series.thin(y, POINTS)
    x, y = x[keep], y[keep]
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers within the range."""
        rough = (self.high - self.low) / TICKS
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step)
        return [round(number * step, 12) for number in range(first, math.floor(self.high / step) + 1)]


def _scale(values: Sequence[np.ndarray], start: float, end: float) -> _Scale:
    low, high = min(float(each.min()) for each in values), max(float(each.max()) for each in values)
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return _Scale(low - room, high + room, start, end)


def _drawn(number: int, line: Line, x: np.ndarray, y: np.ndarray, across: Callable[[float], float], up: Callable[[float], float]) -> str:
    colour = LIGHT.palette[number % len(LIGHT.palette)]
    points = [(across(a), up(b)) for a, b in zip(x, y, strict=True)]
    way = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    marks = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.2" fill="{colour}"/>' for a, b in points) if line.dots or len(points) == 1 else ""
    return f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"/>{marks}'


def _axis(up: _Scale) -> str:
    return "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" stroke="currentColor" opacity=".12"/>'
        f'<text x="{LEFT - 5}" y="{up(tick) + 3:.1f}" text-anchor="end" fill="currentColor" opacity=".7">{tick:,g}</text>'
        for tick in up.ticks()
    )


def _steps(across: _Scale) -> str:
    """Whole numbers alone: between two steps there is none."""
    whole = [tick for tick in across.ticks() if tick == int(tick)]
    return "".join(
        f'<text x="{across(tick):.1f}" y="{HEIGHT - 8}" text-anchor="middle" fill="currentColor" opacity=".7">{tick:,.0f}</text>' for tick in whole
    )


def _legend(number: int, label: str, value: float) -> str:
    colour = LIGHT.palette[number % len(LIGHT.palette)]
    swatch = f'<span style="display:inline-block;width:9px;height:3px;border-radius:2px;background:{colour};vertical-align:middle;margin:0 4px 0 10px"></span>'
    return f"{swatch}{html.escape(text.visible(label))} <b>{text.number(float(value))}</b>"
