"""`wb.compare`: several runs beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from workbench import metrics as M
from workbench.notebook.runs import Run, run_of
from workbench.rundir.store import RunDir
from workbench.settings.stored import spec_tree
from workbench.views import catalogue, feed, figures, pictures, tables
from workbench.views.history import History

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from workbench.notebook.widgets.compare import Compare

PICTURED = 6


class Comparison:
    """Runs beside each other: their curves, the settings that differ, their newest values.

    >>> both = wb.compare([first, second])
    >>> list(both.settings.index)
    ['algorithm.beta']
    >>> both.metrics.groupby("run").size().tolist()
    [3, 3]
    """

    def __init__(self, runs: Sequence[Run | RunDir | str]) -> None:
        self.runs = [run_of(run) for run in runs]
        if len(ids := [run.id for run in self.runs]) != len(set(ids)):
            raise ValueError(f"a run is given twice: {', '.join(ids)}")

    @property
    def names(self) -> dict[str, Run]:
        """The runs by a name that people know, with the end of the id that tells equal names apart."""
        return {f"{run.name} · {run.id[-4:]}": run for run in self.runs}

    @property
    def settings(self) -> pd.DataFrame:
        """A row a setting that is not the same in all runs, a column a run."""
        return tables.config_diff({name: spec_tree(run.dir) for name, run in self.names.items()})

    @property
    def metrics(self) -> pd.DataFrame:
        """The steps of all runs, one below the other: `run`, `step`, `elapsed_s` and the metrics."""
        return self._stacked(held_out=False)

    @property
    def held_out(self) -> pd.DataFrame:
        """What was measured on the held-out rows, as `metrics` has the steps."""
        return self._stacked(held_out=True)

    def curves(self, metric: str = M.LOSS, smoothing: float = 0.0, by: figures.Axis = "step", held_out: bool = False) -> go.Figure:
        """A plotly figure of one metric of all runs.

        Args:
            smoothing: weight of the exponential moving average on the past, 0 <= w < 1.
            by: `step`, or `time` in minutes of training.

        Raises:
            ValueError: no run has this metric; the message names those there are.
        """
        with self._histories() as histories:
            known = list(dict.fromkeys(name for each in histories.values() for name in (each.validation_metrics if held_out else each.metrics)))
            if metric not in known:
                raise ValueError(f"none of these runs has {'a held-out ' if held_out else ''}{metric!r}; there are: {', '.join(known) or 'none yet'}")
            return figures.compare(histories, metric, smoothing, by, held_out)

    def widget(self) -> Compare:
        """Curves to choose among, live while a run is."""
        from workbench.notebook.widgets.compare import Compare

        return Compare(self.runs)

    def __repr__(self) -> str:
        return f"Comparison of {', '.join(self.names)}; settings that differ: {', '.join(map(str, self.settings.index)) or 'none'}"

    def _repr_html_(self) -> str:
        with self._histories() as histories:
            shared = list(dict.fromkeys(name for each in histories.values() for name in each.metrics))
            order = [metric for chart in catalogue.charts(shared) for metric, _ in chart.series][:PICTURED]
            drawn = [pictures.curve(_lines(histories, metric), catalogue.label(metric), catalogue.unit(metric)) for metric in order]
        differing = [{"setting": str(name), **{str(run): value for run, value in row.items()}} for name, row in self.settings.iterrows()]
        return pictures.beside(drawn) + pictures.table(differing, "settings that differ" if differing else "these runs have the same settings")

    @contextmanager
    def _histories(self) -> Iterator[Mapping[str, History]]:
        with ExitStack() as stack:
            # In the order of the ids, so that two that compare the same runs never wait for each other.
            opened = {run.id: stack.enter_context(feed.history(run.dir)) for run in sorted(self.runs, key=lambda run: run.id)}
            yield {name: opened[run.id] for name, run in self.names.items()}

    def _stacked(self, held_out: bool) -> pd.DataFrame:
        import pandas as pd

        with self._histories() as histories:
            frames = {name: each.validation_frame() if held_out else each.frame() for name, each in histories.items()}
        stacked = [frame.assign(run=name) for name, frame in frames.items() if len(frame)]
        if not stacked:
            return pd.DataFrame(columns=pd.Index(["run", "step", "elapsed_s"]))
        frame = pd.concat(stacked, ignore_index=True)
        return frame.reindex(columns=["run", *(name for name in frame.columns if name != "run")])


def _lines(histories: Mapping[str, History], metric: str) -> list[pictures.Line]:
    return [pictures.Line(name, each.steps, each.metrics[metric]) for name, each in histories.items() if metric in each.metrics]


def compare(runs: Sequence[Run | RunDir | str]) -> Comparison:
    """Several runs beside each other, given as runs or ids. Raises ValueError for an id that is none, and for one given twice."""
    return Comparison(runs)
