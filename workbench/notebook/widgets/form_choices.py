"""What a form begins with: the kind of job, the experiment, and a choice of each group of conf/."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ipywidgets

from workbench.settings import command_line, composing
from workbench.settings import start as starts
from workbench.settings.start import FIRST_EXPERIMENT, NO_EXPERIMENT, Start
from workbench.settings.upgrade import Tree
from workbench.views import text

GIVEN = "as given"
KEPT = ""
"""The value of a select that leaves its group as it is; of None ipywidgets would show no label."""


class Choices(ipywidgets.Box):
    """Selects for job, experiment and groups. `begun` is called when the form starts anew, `chosen` when a group has another choice."""

    def __init__(self, given: Start, begun: Callable[[], None], chosen: Callable[[], None]) -> None:
        self.start = given
        self._begun, self._chosen, self._filling = begun, chosen, False
        self._given = given if given.experiment is None else None
        explained = starts.explained_jobs()
        about = "What the run does: a file in conf/job/.\n" + "\n".join(f"{text.title(kind)}: {line}" for kind, line in explained.items())
        self.job = ipywidgets.Dropdown(description="Job", options=[(text.title(kind), kind) for kind in explained], value=given.job, tooltip=about)
        self.experiment = ipywidgets.Dropdown(
            description="Experiment", tooltip="An experiment sets several choices at once: a file in conf/experiment/."
        )
        self.groups: dict[str, ipywidgets.Dropdown] = {}
        self._fill_experiments(given.experiment or GIVEN)
        super().__init__()
        self._fill_groups()
        self.add_class("wb-fields")
        self.job.observe(lambda _: self._job_changed(), "value")
        self.experiment.observe(lambda _: self._experiment_changed(), "value")

    def made(self) -> tuple[list[str], Tree]:
        """The words and the tree with the choices in it."""
        return starts.with_choices(self.start, {group: each.value or None for group, each in self.groups.items()})

    def _job_changed(self) -> None:
        if not self._filling:
            self._fill_experiments(FIRST_EXPERIMENT if FIRST_EXPERIMENT in command_line.experiments(_picked(self.job)) else NO_EXPERIMENT)
            self.begin(starts.of_experiment(_picked(self.job), _picked(self.experiment)))

    def _experiment_changed(self) -> None:
        if self._filling:
            return
        if self.experiment.value == GIVEN and self._given:
            with self._quietly():
                self.job.value = self._given.job
            self.begin(self._given)
        else:
            self.begin(starts.of_experiment(_picked(self.job), _picked(self.experiment)))

    def begin(self, start: Start) -> None:
        """Let the form begin with these settings."""
        self.start = start
        self._fill_groups()
        self._begun()

    def _fill_experiments(self, value: str) -> None:
        with self._quietly():
            own: Sequence[str] = (GIVEN,) if self._given else ()
            self.experiment.options = [*own, NO_EXPERIMENT, *command_line.experiments(_picked(self.job))]
            self.experiment.value = value

    def _fill_groups(self) -> None:
        for old in self.groups.values():
            old.close()
        self.groups = {group: self._group(group, now) for group, now in self.start.chosen.items()}
        self.children = [self.job, self.experiment, *self.groups.values()]

    def _group(self, group: str, now: str | None) -> ipywidgets.Dropdown:
        kept = f"as in {self.start.where}" if self.start.tree.get(group) else "none"
        options = [*([(kept, KEPT)] if now is None else []), *((choice, choice) for choice in composing.choices(group))]
        made = ipywidgets.Dropdown(description=text.title(group), options=options, value=now or KEPT, tooltip=f"A file in conf/{group}/.")
        made.observe(lambda _: self._chosen(), "value")
        return made

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Set values without taking them for the user's."""
        self._filling = True
        try:
            yield
        finally:
            self._filling = False


def _picked(select: ipywidgets.Dropdown) -> str:
    return str(select.value)
