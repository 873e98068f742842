"""The settings of a run's algorithm that may change during the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import ipywidgets

from workbench.jobs.runs import Run
from workbench.rundir.lines import Json
from workbench.rundir.store import Status
from workbench.settings.composing import SpecError
from workbench.settings.stored import job, spec_tree
from workbench.views import text


class LiveSettings(ipywidgets.VBox):
    """A field for each, and Apply. What was typed and not applied yet stays while the run is still running; a value that was changed elsewhere replaces it."""

    def __init__(self, run: Run, act: Callable[[Callable[[], None], str], None]) -> None:
        self._run, self._act = run, act
        self._known = _values(run)
        self.fields = {name: _field(name, value, run) for name, value in self._known.items()}
        self.apply = ipywidgets.Button(description="Apply at the next step", tooltip="On every rank, and kept as an event of the run")
        self.apply.on_click(lambda _: self._apply())
        super().__init__([*self.fields.values(), self.apply], layout={"display": "none"})
        self.add_class("wb-settings")

    def show(self, whether: bool) -> None:
        self.layout.display = None if whether else "none"

    def update(self, values: Mapping[str, Json], status: Status) -> None:
        """Take what the run says that its settings are now."""
        for name, field in self.fields.items():
            value = values.get(name)
            if isinstance(value, int | float) and value != self._known[name]:
                self._known[name] = field.value = float(value)
        self.apply.disabled = status.state.ended

    def _apply(self) -> None:
        changed = {name: field.value for name, field in self.fields.items() if field.value != self._known[name]}
        listed = ", ".join(f"{text.title(name)} {self._known[name]:g} → {value:g}" for name, value in changed.items())
        self._act(lambda: self._run.change(**changed) if changed else None, f"Asked for: {listed}." if changed else "Nothing was changed.")


def _values(run: Run) -> dict[str, float]:
    """By name; none of a run that does not train, or whose settings this version does not have."""
    if job(spec_tree(run.dir)) != "train":
        return {}
    try:
        algorithm = run.spec.algorithm
    except SpecError:
        return {}
    return {name: float(getattr(algorithm, name)) for name in algorithm.live}


def _field(name: str, value: float, run: Run) -> ipywidgets.FloatText:
    described = type(run.spec.algorithm).model_fields[name].description or ""
    step = 10.0 ** math.floor(math.log10(abs(value))) if value else 0.01
    return ipywidgets.FloatText(value=value, step=step, description=text.title(name), tooltip=described, style={"description_width": "180px"})
