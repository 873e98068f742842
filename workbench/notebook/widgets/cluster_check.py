"""A form's checks on the cluster: what would keep the run from starting, without submitting it."""

from __future__ import annotations

from dataclasses import dataclass

import ipywidgets

from workbench import api
from workbench.notebook.checks import Findings
from workbench.notebook.widgets import parts
from workbench.notebook.widgets.background import Background

COLOURS = {"ok": "green", "warning": "orange", "error": "red"}


@dataclass(frozen=True, eq=False)
class _Question:
    experiment: api.Experiment
    on_node: bool


class ClusterCheck(ipywidgets.VBox):
    """A button, and what the checks of exactly these settings shown. Launching makes the quick ones again by itself."""

    def __init__(self) -> None:
        self._experiment: api.Experiment | None = None
        self._known: tuple[_Question, str] | None = None
        self._asking = Background("checks on the cluster", self._ask)
        about = "Does it fit the nodes, where do the files lie, when would it start?"
        self.button = ipywidgets.Button(description="Check on the cluster", icon="tasks", tooltip=about)
        self.on_node = ipywidgets.Checkbox(
            description="Try a node", indent=False, tooltip="Also starts Python on one of the nodes. It waits in the queue for it."
        )
        self.findings = ipywidgets.HTML()
        self.button.on_click(lambda _: self._clicked())
        self.on_node.observe(lambda _: self._draw(), "value")
        row = ipywidgets.HBox([self.button, self.on_node])
        row.add_class("wb-bar")
        super().__init__([row, self.findings], layout={"display": "none"})

    def show_for(self, experiment: api.Experiment | None) -> None:
        """The settings as they are now; None, and those of a run on this machine, have nothing to check."""
        self._experiment = experiment if experiment is not None and experiment.backend.name != "local" else None
        shown = self._experiment
        self.layout.display = "none" if shown is None else None
        self.on_node.layout.display = None if shown is not None and shown.backend.name == "slurm" else "none"
        self._draw()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the cluster has answered. False where it takes longer."""
        return self._asking.wait(timeout_s)

    def close(self) -> None:
        """A check under way ends by itself: the cluster's commands have time limits of their own."""
        self._asking.close()
        super().close()

    def _question(self) -> _Question | None:
        experiment = self._experiment
        return experiment and _Question(experiment, experiment.backend.name == "slurm" and self.on_node.value)

    def _clicked(self) -> None:
        if question := self._question():
            self.button.disabled = True
            self.findings.value = parts.message("Asking the cluster …")
            self._asking.give(question)

    def _ask(self, question: _Question) -> bool:
        try:
            shown = "".join(
                f"<div>{parts.badge(each.level, COLOURS[each.level])} <b>{parts.plain(each.name)}</b> {parts.plain(each.message)}</div>"
                for each in Findings(api.preflight(question.experiment, question.on_node))
            )
        except (ValueError, OSError) as error:
            shown = parts.message(str(error), "red")
        if self._asking.newest(question):
            self._known = question, shown
            self.button.disabled = False
            self._draw()
        return False

    def _draw(self) -> None:
        question, known = self._question(), self._known
        if self.button.disabled:  # the answer is on its way
            return
        same = known is not None and question is not None and (known[0].experiment, known[0].on_node) == (question.experiment, question.on_node)
        note = '<div class="wb-note">Nodes, files and expected start, for the settings as they are now.</div>'
        self.findings.value = known[1] if known and same else note
