"""Several runs beside each other, live while any of them is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import ipywidgets

from workbench import metrics as M
from workbench.jobs.runs import Run
from workbench.notebook.widgets import parts
from workbench.notebook.widgets.attached import Attached
from workbench.notebook.widgets.charts import Charts
from workbench.notebook.widgets.curve_choices import choices
from workbench.notebook.widgets.showing import Shown
from workbench.settings.stored import spec_tree
from workbench.views import comparison, feed, figures, live, pictures, tables
from workbench.views.history import History
from workbench.views.pictures import Line
from workbench.views.text import STATE_COLOURS

EVERY_S = 1.0


class Compare(Shown):
    """Curves of one metric of several runs, where each of them stands, and the settings in which they differ."""

    def __init__(self, runs: Sequence[Run]) -> None:
        if not runs:
            raise ValueError("nothing to compare: give at least one run")
        self.runs = {parts.label(run): run for run in runs}
        self._attached = Attached("comparison", self._tick, self._going, EVERY_S)
        options, first = self._options()
        self.metric = ipywidgets.Dropdown(options=options, value=first, description="Metric", layout={"width": "min(100%, 340px)"})
        self.charts = Charts(self._updates, self._attached.hear)
        self.standings, self.settings, self.said = ipywidgets.HTML(), ipywidgets.HTML(_differing(self.runs)), ipywidgets.HTML()
        bar = ipywidgets.HBox([self.metric, *choices(self.charts, self._attached.serve)])
        bar.add_class("wb-bar")
        self.metric.observe(lambda _: self._restart(), "value")
        super().__init__([bar, self.said, self.charts, self.standings, self.settings], self._attached)
        self._show()

    def picture(self) -> str:
        metric, held_out = self._choice
        with ExitStack() as stack:
            histories = self._opened(stack)
            lines = [Line(name, *figures.curve(history, metric, "step", held_out), dots=held_out) for name, history in histories.items()]
            rows = self._standings(histories)
        return pictures.curve(lines, comparison.label(self._choice)) + pictures.table(rows) + _differing(self.runs)

    def plain_text(self) -> str:
        return f"Compare({', '.join(self.runs)})"

    def mark(self) -> object:
        with ExitStack() as stack:
            return self._choice, [history.cursor for history in self._opened(stack).values()]

    @property
    def _choice(self) -> comparison.Choice:
        return self.metric.value or (M.LOSS, False)

    def _updates(self, since: str | None, smoothing: float, axis: figures.Axis) -> live.Update:
        folders = {name: run.dir for name, run in self.runs.items()}
        return live.compared(folders, *self._choice, since, smoothing, axis)

    def _going(self) -> bool:
        return any(not run.status.state.ended for run in self.runs.values())

    def _tick(self, fresh: frozenset[str]) -> bool:
        try:
            going = self._going()
            self._show()
            self.charts.push(self._attached.views, fresh, going)
            self.said.value = ""
        except (ValueError, OSError) as error:
            self.said.value = parts.message(str(error), "red")
            return True
        if not going:
            self.refresh_picture()
        return going

    def _restart(self) -> None:
        self.charts.restart()
        self._show()
        self._attached.serve()

    def _show(self) -> None:
        options, _ = self._options()
        if options and list(self.metric.options) != options:
            chosen = self.metric.value
            self.metric.options = options
            if chosen in [value for _, value in options]:
                self.metric.value = chosen
        with ExitStack() as stack:
            rows = self._standings(self._opened(stack))
        self.standings.value = pictures.table(rows, "Where each run stands")

    def _options(self) -> tuple[list[tuple[str, comparison.Choice]], comparison.Choice | None]:
        with ExitStack() as stack:
            known = comparison.choices(self._opened(stack).values())
        return [(comparison.label(each), each) for each in known], known[comparison.first_choice(known)] if known else None

    def _standings(self, histories: dict[str, History]) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for name, history in histories.items():
            state = self.runs[name].status.state
            badge = pictures.Html(parts.badge(state.capitalize(), STATE_COLOURS[state]))
            rows.append({**comparison.standing(name, history, *self._choice), "State": badge})
        return rows

    def _opened(self, stack: ExitStack) -> dict[str, History]:
        """In the order of the ids, so that two that compare the same runs never wait for each other."""
        opened = {run.id: stack.enter_context(feed.history(run.dir)) for run in sorted(self.runs.values(), key=lambda run: run.id)}
        return {name: opened[run.id] for name, run in self.runs.items()}


def _differing(runs: dict[str, Run]) -> str:
    """The settings that are not the same in all runs, as HTML."""
    table = tables.config_diff({name: spec_tree(run.dir) for name, run in runs.items()})
    if table.empty:
        return pictures.table([], "These runs have the same settings." if len(runs) > 1 else "")
    return pictures.table(
        [{"Setting": key, **{str(name): value for name, value in row.items()}} for key, row in table.iterrows()], "Settings that differ"
    )
