"""Which metrics of a run are drawn together, in which order, and what people call them: `workbench.metrics`, as the pages want it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from workbench import metrics as M
from workbench.metrics import GROUPS, Metric
from workbench.views import text

PHASE_PARTS = {"generate": ("refit",), "train": ("data", "forward_backward", "optimizer")}
"""Phases of a step (`time_<phase>_s`) that are measured within another."""
UNITS = {"_per_s": "1 / s", "_gib": "GiB", "_s": "s"}
"""Of metrics that nobody registered, by the end of their name."""


@dataclass(frozen=True)
class Chart:
    """One chart of a run: those of its metrics that the run has, with their names in its legend. `help` has a line for each."""

    key: str
    title: str
    unit: str
    series: tuple[tuple[str, str], ...]
    stacked: bool
    group: str
    smooth: bool
    wide: bool
    help: str


def charts(metrics: Iterable[str]) -> list[Chart]:
    """The charts for these metrics, in the groups' order: the registered ones, then one for each that nobody registered."""
    names = set(metrics := list(metrics))
    within = {M.TIME_OF(part) for whole, parts in PHASE_PARTS.items() if M.TIME_OF(whole) in names for part in parts}  # stacked: none twice
    members: dict[str, list[Metric]] = defaultdict(list)
    for name in dict.fromkeys(metrics):
        if name not in within:
            members[known(name).chart.key].append(known(name))
    families = sorted((sorted(same, key=lambda m: m.order) for same in members.values()), key=lambda same: same[0].chart.order)
    return sorted(map(_chart, families), key=lambda chart: GROUPS.index(chart.group))


def _chart(metrics: list[Metric]) -> Chart:
    chart = metrics[0].chart
    lines = (m.help for m in metrics) if len(metrics) == 1 else (f"{m.label}: {m.help}" for m in metrics)
    series = tuple((str(m), m.label) for m in metrics)
    return Chart(chart.key, chart.title, chart.unit, series, chart.stacked, chart.group, chart.smooth, chart.wide, "\n".join(lines))


def known(name: str) -> Metric:
    """What the registry has of a metric; of one that nobody registered, what its name says."""
    if registered := M.find(name):
        return registered
    title = text.title(name)
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    return Metric(name, title, "", M.Chart(name, title, unit, M.OTHER), "train")


def label(metric: str) -> str:
    """A metric's name for people: its chart's title, with its part of a shared chart."""
    return known(metric).heading


def unit(metric: str) -> str:
    """The unit on a metric's axis."""
    return known(metric).unit


def explained(metric: str) -> str:
    """One line on what a metric is; empty where nobody registered it."""
    return known(metric).help
