"""How curves are drawn, to choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets

from workbench.notebook.widgets.charts import Charts
from workbench.views import series


def choices(charts: Charts, then: Callable[[], None]) -> Sequence[ipywidgets.ToggleButtons]:
    """The charts' smoothing and axis; `then` is called after each choice."""
    smoothing = ipywidgets.ToggleButtons(options=list(series.SMOOTHING.items()), value=charts.smoothing, description="Smoothing")
    axis = ipywidgets.ToggleButtons(options=[("Step", "step"), ("Time", "time")], value=charts.axis, description="Axis")

    def chosen(_: object) -> None:
        charts.choose(smoothing.value, axis.value)
        then()

    for each in (smoothing, axis):
        each.observe(chosen, "value")
    return smoothing, axis
