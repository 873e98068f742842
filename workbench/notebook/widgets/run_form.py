"""`wb.RunForm`: the app's Launch form in a notebook: choose, change, check, launch."""

from __future__ import annotations

import html
import threading
from collections.abc import Iterator

import ipywidgets

from workbench import api
from workbench.notebook.experiments import Experiment, as_spec
from workbench.notebook.runs import Run
from workbench.notebook.widgets import parts
from workbench.notebook.widgets.background import Background
from workbench.notebook.widgets.cluster_check import ClusterCheck
from workbench.notebook.widgets.fields import Input, Section, close_all
from workbench.notebook.widgets.form_choices import Choices
from workbench.notebook.widgets.showing import Shown
from workbench.notebook.widgets.style import style
from workbench.settings import command_line, spec
from workbench.settings import start as starts
from workbench.settings.composing import SpecError
from workbench.settings.python_call import python_call
from workbench.settings.start import Start
from workbench.settings.upgrade import Tree
from workbench.views import form, pictures
from workbench.views.form import Field

ORDER = ("", "job", "algorithm", "model", "data", "backend", "rollout", "validation", "checkpoint", "watch")
"""Sections from the top: those that people change first."""
OPENED = ("", "job", "algorithm")
QUIET_S = 0.3
"""How long nothing may have been typed before data and models are looked at, in seconds."""
POLL_S = 0.5
CLOSE_S = 5.0


class RunForm(Shown):
    """A form for an experiment, and its launch: `RunForm()`, `RunForm("ppo_demo")`, `RunForm(wb.Experiment(…))`.

    `experiment` is what the form holds now, None while it has problems; `run` the run that was launched from it. Data and models are looked at in a
    thread that ends when it knows; a change in the form takes milliseconds.

    Raises:
        SpecError: no experiment has this name; the message has the nearest.
    """

    def __init__(self, experiment: Experiment | spec.Experiment | str | None = None) -> None:
        self.run: Run | None = None
        self.problems: list[tuple[str, str]] = []
        """(key, what is wrong) of all that keeps the form from launching."""
        self.pending: list[str] = []
        """Keys whose source is still looked at."""
        self.values: Tree = {}
        self._lock = threading.RLock()
        self._changes = 0
        self._parsed: spec.Experiment | None = None
        self._answer: tuple[spec.Experiment, list[tuple[str, str]]] | None = None
        self._sections: dict[tuple[str, str], Section] = {}
        self._sources = Background("data and models of a form", self._look, QUIET_S)
        self.choices = Choices(_start(experiment), self._begin, self._choose)
        self.unknown, self.summary, self.copied = (ipywidgets.HTML() for _ in range(3))
        self.cluster = ClusterCheck()
        self.launch_button = ipywidgets.Button(description="Launch run", icon="rocket", button_style="primary", disabled=True)
        self.launch_button.on_click(lambda _: self.launch())
        self.outcome, self._body = ipywidgets.VBox(), ipywidgets.VBox()
        side = ipywidgets.VBox([self.summary, self.cluster, self.launch_button, self.copied])
        halves = ipywidgets.Box([self._body, side])
        halves.add_class("wb-halves")
        super().__init__([style(), self.choices, self.unknown, halves, self.outcome])
        self._begin()

    @property
    def experiment(self) -> spec.Experiment | None:
        """What would be launched now; None while something is wrong with it."""
        return None if self.problems else self._parsed

    @property
    def command(self) -> str:
        """The command line that launches the same."""
        return command_line.command(self._overrides, self.values)

    @property
    def python(self) -> str:
        """The Python that launches the same."""
        return python_call(self._overrides, self.values)

    @property
    def inputs(self) -> dict[str, Input]:
        """Every input by its dotted key: `form.inputs["algorithm.lr"].widget.value = 1e-4`."""
        return {key: each for section in self._shown_sections() for key, each in section.inputs.items()}

    @property
    def sections(self) -> dict[str, Section]:
        """The sections that are shown, by their keys; the general settings are ""."""
        return {section.part.path: section for section in self._shown_sections()}

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is known of the data and the models that the form names. False where it takes longer."""
        return self._sources.wait(timeout_s)

    def launch(self) -> Run | None:
        """What the button does: launch, and show the run's live view below the form. None where it cannot be launched; the form says why."""
        experiment = self.experiment
        if experiment is None:
            return None
        self.launch_button.disabled = True
        self._show_outcome(ipywidgets.HTML(parts.message("Launching …")))
        try:
            self.run = Run(api.submit(experiment).dir)
        except (ValueError, OSError) as error:
            self._show_outcome(ipywidgets.HTML(parts.message(f"The launch failed: {error}", "red")))
            self.launch_button.disabled = False
            return None
        from workbench.notebook.widgets.live_run import LiveRun

        self._changes += 1
        self._show_outcome(LiveRun(self.run, self.run.link))
        return self.run

    def close(self) -> None:
        """Take the form away. No thread of it is left; the run it launched continues."""
        self._sources.close()
        self._sources.wait(CLOSE_S)
        for child in self.children:
            close_all(child)
        for section in self._sections.values():
            close_all(section.widget)
        super().close()

    def picture(self) -> str:
        fields = [each for section in self._described.sections if section.path in OPENED for each in section.fields()]
        rows = [{"setting": each.key, "value": self._value(each)} for each in fields]
        copied = "".join(f'<pre style="white-space:pre-wrap">{html.escape(each)}</pre>' for each in (self.command, self.python))
        ran = f"<p>Launched as <code>{html.escape(self.run.id)}</code>.</p>" if self.run else ""
        return f'<div style="{pictures.FONT}">{pictures.table(rows, "A form for an experiment")}{self._state()}{copied}{ran}</div>'

    def plain_text(self) -> str:
        return f"RunForm({self.command})"

    def mark(self) -> object:
        return self._changes

    def _begin(self) -> None:
        """Draw the form anew, from where it begins now."""
        with self._lock:
            for section in self._sections.values():
                close_all(section.widget)
            self._sections = {}
            self._choose()

    def _choose(self) -> None:
        """Draw the sections of the choices that were made: those of a choice that stayed keep what was typed."""
        with self._lock:
            before = self.sections if self._sections else {}
            self._overrides, tree = self.choices.made()
            self._described = form.describe(tree)
            for part in self._described.sections:
                key = self._key(part.path)
                if key not in self._sections:
                    opened = part.path in OPENED if part.path not in before else before[part.path].widget.selected_index == 0
                    self._sections[key] = Section(part, opened, self._changed)
            self._body.children = [section.widget for section in sorted(self._shown_sections(), key=lambda each: ORDER.index(each.part.path))]
            named = ", ".join(f"<code>{parts.plain(key)}</code>" for key in self._described.unknown)
            self.unknown.value = (
                f'<div class="wb-message wb-orange">This version has no such setting, so it is left out: {named}</div>' if named else ""
            )
            self._changed()

    def _key(self, path: str) -> tuple[str, str]:
        return starts.chosen_word(self._overrides, path), path

    def _shown_sections(self) -> Iterator[Section]:
        return (self._sections[self._key(part.path)] for part in self._described.sections)

    def _value(self, of: Field) -> object:
        section = of.key.rpartition(".")[0].partition(".")[0]
        return self._sections[self._key(section)].value(of)

    def _changed(self) -> None:
        """Check what the form holds now, but for what its data and models have in them: that is looked at in a thread."""
        with self._lock:
            self._changes += 1
            self.values = self._described.tree(self._value)
            try:
                self._parsed = api.with_checkpoint(spec.parse(self.values))
            except SpecError as error:
                self._parsed, self.problems, self.pending = None, error.problems, []
            else:
                known = self._answer if self._answer and _same_sources(self._answer[0], self._parsed) else None
                self.problems, self.pending = known[1] if known else [], [] if known else ["data and models"]
                if not known:
                    self.problems = _missing(self._parsed)
            self._sources.give(self._parsed)
            self._draw()

    def _look(self, experiment: spec.Experiment) -> bool:
        """Ask what is wrong with the data and the models of an experiment. True while something is still looked at."""
        try:
            checked = api.check_sources(experiment, wait_s=POLL_S)
        except OSError as error:
            checked = api.SourceCheck([("", str(error))], [])
        with self._lock:
            if self._sources.newest(experiment):
                self.problems, self.pending = checked.problems, checked.pending
                if not checked.pending:
                    self._answer = experiment, checked.problems
                self._draw()
        return bool(checked.pending)

    def _draw(self) -> None:
        """Put every problem beside its field, and what follows from them into the summary."""
        sections = list(self._shown_sections())
        places = {slot for section in sections for slot in section.part.places()}
        beside: dict[str, list[str]] = {}
        for slot, message in form.beside(self.problems, places):
            beside.setdefault(slot, []).append(message)
        for section in sections:
            section.show(beside)
        self.summary.value = self._state()
        self.launch_button.disabled = self.experiment is None
        self.cluster.show_for(self.experiment)
        blocks = (("The same from a terminal", self.command), ("The same in Python", self.python))
        self.copied.value = "".join(
            f'<div class="wb-title">{title}</div><pre class="wb-copy" tabindex="0" aria-label="{title}">{html.escape(command)}</pre>'
            for title, command in blocks
        )

    def _state(self) -> str:
        """Whether the settings are valid, as HTML."""
        if self.problems:
            listed = "".join(f"<li><code>{parts.plain(key or 'experiment')}</code>: {parts.plain(what)}</li>" for key, what in self.problems)
            count = f"{len(self.problems)} {'problem' if len(self.problems) == 1 else 'problems'}"
            return f'<div class="wb-message wb-red" role="status"><b>{count} to solve before the launch</b><ul>{listed}</ul></div>'
        return parts.message(f"Checking {', '.join(self.pending)} …" if self.pending else "Every setting is valid.")

    def _show_outcome(self, widget: ipywidgets.Widget) -> None:
        for child in self.outcome.children:
            close_all(child)
        self.outcome.children = [widget]


def _start(experiment: Experiment | spec.Experiment | str | None) -> Start:
    if experiment is None:
        return starts.of_experiment(experiment=starts.FIRST_EXPERIMENT)
    if isinstance(experiment, str):
        return starts.of_experiment_named(experiment)
    given = as_spec(experiment)
    return starts.of_tree(given.name, given.model_dump(mode="json"))


def _missing(experiment: spec.Experiment) -> list[tuple[str, str]]:
    """Files and functions that are not there."""
    try:
        experiment.check_files()
    except SpecError as error:
        return error.problems
    return []


def _same_sources(one: spec.Experiment, other: spec.Experiment) -> bool:
    """Whether two experiments read the same data and models, so that what is known of one holds for the other."""
    return (one.data, one.model, one.algorithm, one.job, one.backend.name) == (
        other.data,
        other.model,
        other.algorithm,
        other.job,
        other.backend.name,
    )
