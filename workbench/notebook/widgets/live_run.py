"""A run, live: its state, curves and answers, and the buttons that control it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import ipywidgets

from workbench.jobs.runs import Run
from workbench.notebook.widgets import parts
from workbench.notebook.widgets.attached import Attached
from workbench.notebook.widgets.charts import Charts
from workbench.notebook.widgets.curve_choices import choices
from workbench.notebook.widgets.live_settings import LiveSettings
from workbench.notebook.widgets.newest import newest_answers
from workbench.notebook.widgets.showing import Shown
from workbench.rundir.store import State, Status
from workbench.settings.stored import job, spec_tree
from workbench.views import History, controls, feed, live, pictures, tables
from workbench.views.history import HistoryCursor
from workbench.views.text import Figure

LOG_LINES = 15


class LiveRun(Shown):
    """A run's live view: `LiveRun(wb.get("latest"))`.

    While it is to be seen in a browser and the run is still running, one thread reads what the run writes and sends what is new; else nothing is done. `link` is
    the address of the run's page in the app.
    """

    def __init__(self, run: Run, link: str = "") -> None:
        self.run, self.link = run, link
        self._attached = Attached(f"live view of {run.id}", self._tick, self._going)
        self._acting = threading.Lock()
        self.charts = Charts(
            lambda since, smoothing, axis: live.updates(run.dir, HistoryCursor.parse(since) if since else None, smoothing, axis), self._attached.hear
        )
        self.title, self.head, self.said, self.trouble, self.answers = (ipywidgets.HTML() for _ in range(5))
        self.buttons = _Buttons(run, self._act)
        self.settings = LiveSettings(run, self._act)
        self.settings_button = ipywidgets.ToggleButton(description="Live settings", tooltip="Settings that may change during the run")
        self.settings_button.observe(lambda _: self.settings.show(self.settings_button.value), "value")
        top = ipywidgets.HBox([self.title, *self.buttons.all])
        options = ipywidgets.HBox([*choices(self.charts, self._attached.serve), self.settings_button])
        for bar in (top, options):
            bar.add_class("wb-bar")
        tabs = ipywidgets.Tab([self.charts, self.answers], titles=("Curves", "Newest answers"))
        super().__init__([top, self.buttons.confirm, self.said, self.trouble, self.head, options, self.settings, tabs], self._attached)
        self._show()

    def picture(self) -> str:
        try:
            status = self.run.status
            with feed.history(self.run.dir) as history:
                name = str(spec_tree(self.run.dir).get("name", self.run.id))
                return pictures.run(name, self.run.id, history, status, self.link)
        except (ValueError, OSError) as error:
            return parts.message(str(error))

    def plain_text(self) -> str:
        return f"LiveRun({self.run.id})"

    def mark(self) -> object:
        try:
            status = self.run.status
        except (ValueError, OSError) as error:
            return str(error)
        with feed.history(self.run.dir) as history:
            return status.state, status.attempt, history.cursor

    def _going(self) -> bool:
        try:
            return not self.run.status.state.ended
        except (ValueError, OSError):
            return True  # what cannot be read now may be readable again

    def _tick(self, fresh: frozenset[str]) -> bool:
        going = self._going()
        self._show()
        self.charts.push(self._attached.views, fresh, going)
        if not going:
            self.refresh_picture()
        return going

    def _show(self) -> None:
        """Everything but the curves, as it is now; or why that cannot be read."""
        try:
            self._show_status(self.run.status)
            self.trouble.value = ""
        except (ValueError, OSError) as error:
            self.trouble.value = parts.message(f"The run cannot be read: {error}", "red")

    def _show_status(self, status: Status) -> None:
        with feed.history(self.run.dir) as history:
            progress, notices = parts.progress(history, status), parts.notices(history, status)
            figures = parts.figures(_headline(self.run, history, status))
            made, values = list(history.controls), dict(history.live)
            validation = next((v for v in reversed(history.validations) if v.samples), None)
        trouble = feed.problem(self.run.dir)
        unread = parts.message(f"The newest events cannot be read: {trouble}", "orange") if trouble else ""
        log = parts.log_tail(self.run.log_tail("actor", LOG_LINES)) if status.state == State.FAILED else ""
        self.title.value = parts.title(self.run, status, self.link)
        self.head.value = progress + unread + notices + log + figures
        self.answers.value = newest_answers(self.run.dir, validation) or parts.message("Nothing was sampled yet.")
        self.settings.update(values, status)
        self.settings_button.layout.display = None if self.settings.fields and not status.state.ended else "none"
        asked = [] if status.state.ended else controls.waiting(self.run.dir, made)
        self.buttons.update(status, controls.pausing([*made, *asked]))

    def _act(self, do: Callable[[], None], done: str) -> None:
        """Do what a button says, and say that it was asked for, or why it cannot be done. Buttons' handlers may run beside each other."""
        with self._acting:
            try:
                do()
            except (ValueError, OSError) as error:
                self.said.value = parts.message(str(error), "red")
            else:
                self.said.value = parts.message(done)
                self._show()
        self._attached.serve()


class _Buttons:
    """Stop, pause and kill, and the question before the last."""

    def __init__(self, run: Run, act: Callable[[Callable[[], None], str], None]):
        self.stop = _button("Stop", "Save a checkpoint at the next step and end. The run can be resumed.")
        self.pause = _button("Pause", "Hold the run before its next step; nothing is lost.")
        self.unpause = _button("Continue", "Resume the paused run.")
        self.resume = _button("Resume", "Launch again from the latest valid checkpoint.")
        self.kill = _button("Kill", "End the run at once, without a checkpoint.")
        self.kill_now, self.keep = _button("Kill now", "End the run at once.", "danger"), _button("Keep it", "Do not kill the run.")
        self.all = (self.stop, self.pause, self.unpause, self.resume, self.kill)
        question = ipywidgets.HTML(parts.message("Kill the run? Everything since its latest checkpoint is lost.", "red"))
        self.confirm = ipywidgets.HBox([question, self.kill_now, self.keep], layout={"display": "none"})
        self.confirm.add_class("wb-bar")
        self._read_only = run.read_only
        for button, do, done in (
            (self.stop, run.stop, "Stopping: a checkpoint is saved at the next step."),
            (self.pause, run.pause, "The run is paused before its next step."),
            (self.unpause, run.unpause, "The run continues."),
            (self.resume, run.resume, "Launched again from the latest valid checkpoint."),
            (self.kill_now, run.kill, "The run was killed."),
        ):
            button.on_click(lambda _, do=do, done=done: (self._ask(False), act(do, done)))
        self.kill.on_click(lambda _: self._ask(True))
        self.keep.on_click(lambda _: self._ask(False))

    def update(self, status: Status, paused: bool) -> None:
        """Show those that can be pressed now."""
        live = not status.state.ended and not self._read_only
        stopping = status.state == State.STOPPING
        resumable = status.state.ended and status.state != State.COMPLETED and not self._read_only
        for button, shown in (
            (self.stop, live),
            (self.pause, live and not paused),
            (self.unpause, live and paused),
            (self.resume, resumable),
            (self.kill, live),
        ):
            button.layout.display = None if shown else "none"
        for button in (self.stop, self.pause, self.unpause):
            button.disabled = stopping
        if not live:
            self._ask(False)

    def _ask(self, whether: bool) -> None:
        self.confirm.layout.display = None if whether else "none"


def _button(label: str, tooltip: str, style: str = "") -> ipywidgets.Button:
    return ipywidgets.Button(description=label, tooltip=tooltip, button_style=style)


def _headline(run: Run, history: History, status: Status) -> list[Figure]:
    if job(spec_tree(run.dir)) == "train":
        return tables.headline(history, status)
    return tables.pace(history, status, "Ran")
