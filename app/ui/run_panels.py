"""The parts of the Run page that several kinds of job share. Each is a fragment of its own, so that one refreshes without the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui import access, alarm_panel, choose, frame, notebook_panel
from workbench import api
from workbench import metrics as M
from workbench.api import Run
from workbench.rundir import opening
from workbench.rundir.files import last_lines
from workbench.rundir.lines import Ratings
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import State, Status
from workbench.settings import command_line
from workbench.settings.stored import job, problem, spec_tree, work
from workbench.views import History, Validation, catalogue, feed, tables, text
from workbench.views import diagnostics as views
from workbench.views.rollouts import gist
from workbench.views.text import Figure

LOG_LINES = 300
LOG_LINES_SHOWN = 20
KINDS = Path(__file__).parent / "kinds"


@dataclass(frozen=True)
class Tab:
    """A tab of the Run page. `icon` is a Material symbol. `draw` is a fragment, drawn again every so many seconds until the run ends; without
    `every_s` it is drawn with the page. One that is `kept` is drawn also while another tab is open."""

    title: str
    icon: str
    draw: Callable[[Run], None]
    every_s: float | None = 2.0
    kept: bool = False

    @property
    def label(self) -> str:
        return f":material/{self.icon}: {self.title}"

    def show(self, run: Run, ended: bool) -> None:
        """Draw it here."""
        if self.every_s is None:
            self.draw(run)
        else:
            frame.refreshed(self.draw, None if ended else self.every_s)(run)


class View(Protocol):
    """What a file of app/ui/kinds/ has: the Run page of one kind of job."""

    @staticmethod
    def headline(run: Run, history: History, status: Status, /) -> list[Figure]:
        """The numbers below the title."""
        ...

    @staticmethod
    def above_tabs(run: Run, /) -> None:
        """What stands between the headline and the tabs."""
        ...

    @staticmethod
    def tabs(run: Run, /) -> list[Tab]:
        """The tabs, as the run is now."""
        ...


def view_of(run: Run) -> View:
    """The view of the run's kind of job."""
    kind = job(spec_tree(run.dir))
    known = sorted(path.stem for path in KINDS.glob("[a-z]*.py"))
    return cast(View, import_module(f"ui.kinds.{kind if kind in known else '_other'}"))


def head(run: Run, ended: bool, tabs: Sequence[str]) -> None:
    """Title, state, buttons, headline numbers; start-up progress before the first step, the reason after a failure."""
    status, view = run.status, view_of(run)
    if status.state.ended != ended or [tab.label for tab in view.tabs(run)] != list(tabs):
        st.rerun()
    spec = spec_tree(run.dir)
    title, buttons = st.columns([3, 2], vertical_alignment="center")
    with title, st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"## {frame.plain(str(spec.get('name', run.id)))}", width="content", anchors=False)
        frame.state_badge(status)
        st.badge(frame.plain(text.title(work(spec)).upper()), color="gray")
    with buttons, st.container(horizontal=True, horizontal_alignment="right", gap="small"):
        if access.may_change():
            _buttons(run, status)
        notebook_panel.draw(run)
    attempt = f" · attempt {status.attempt}" if status.attempt > 1 else ""
    backend = spec.get("backend", {}).get("name", "?")
    commit = f" at {run.commit[:12]}" if run.commit else ""
    st.caption(
        f"{frame.code(run.id)} · {frame.plain(str(spec.get('model', {}).get('source', '?')) + commit)} · {frame.plain(str(backend))} · started {text.clock(status.created)}{attempt}"
    )
    if stage := api.stage_of(run):
        label = f"Stage {stage[1]} of the pipeline {stage[0].id}"
        st.page_link("pages/pipelines.py", label=frame.plain(label), icon=":material/account_tree:", query_params={"id": stage[0].id})
    if servers := run.servers():
        st.caption(" · ".join(f"**{frame.plain(server.role)}** {frame.plain(str(server))}" for server in servers))
    if status.state == State.FAILED:
        _failure(run, status)
    with feed.history(run.dir) as history:
        _progress(history, status)
        figures = view.headline(run, history, status)
    if reason := run.read_only:
        st.info(f"Read-only: {frame.plain(reason)}. Nothing of it can be changed here.", icon=":material/lock:")
    if not ended and (wrong := feed.problem(run.dir)):
        st.warning(f"The newest events cannot be read: {frame.plain(wrong)}", icon=":material/warning:")
    if figures:
        with st.container(key="headline"):
            for column, figure in zip(st.columns(max(4, len(figures)), gap="small"), figures, strict=False):
                column.metric(figure.label, figure.value, figure.note or None, delta_color="off", delta_arrow="off", border=True, height="stretch")


def above_tabs(run: Run) -> None:
    """What cannot be read of a run that has ended, the alarms, and what the kind of job has between the headline and the tabs."""
    for bad in run.problems() if run.status.state.ended else ():  # the head says what is wrong with the events of a run that is still running
        st.warning(f"Cannot be read: {frame.plain(str(bad))}", icon=":material/warning:")
    alarm_panel.draw(run)
    view_of(run).above_tabs(run)


def _buttons(run: Run, status: Status) -> None:
    if run.read_only:
        pass
    elif status.state.ended:
        if status.state != State.COMPLETED and st.button(
            "Resume", icon=":material/resume:", type="primary", help="Continue from the latest valid checkpoint."
        ):
            act(run.resume)
    else:
        if st.button(
            "Stop",
            icon=":material/stop_circle:",
            disabled=status.state == State.STOPPING,
            help="Save a checkpoint at the next step and end. The run can be resumed.",
        ):
            act(run.stop)
        with st.popover("Kill", icon=":material/dangerous:"):
            st.markdown("**Kill the run?** Everything since its latest checkpoint is lost.")
            if st.button("Kill now", type="primary", icon=":material/dangerous:", key="kill-now"):
                act(run.kill)
    if st.button("Clone", icon=":material/content_copy:", help="Open Launch with this run's settings."):
        choose.clone(run.id)


def act(change: Callable[[], None]) -> None:
    """Do what a button says; show why when it cannot be done."""
    try:
        change()
    except (ValueError, OSError) as error:
        st.error(frame.plain(str(error)), icon=":material/error:")
    else:
        st.rerun()


def _failure(run: Run, status: Status) -> None:
    reason, _, rest = (status.message or "the run failed without a message").partition("\n")
    with st.container(key="failure"):
        st.error(f"**The run failed.** {frame.plain(reason[:1].upper() + reason[1:])}", icon=":material/error:")
        role = "actor" if run.log_tail("actor", lines=1) else "driver"
        if tail := run.log_tail(role, lines=25) or rest:
            with st.container(height=190, border=False, autoscroll=True):
                st.code(text.visible(tail), language=None)
        logs = run.logs(role)
        st.caption(f"The whole log: {frame.code(logs[-1])}" if logs else f"There is no log in {frame.code(run.dir.logs)}.")


def _progress(history: History, status: Status) -> None:
    for message in history.warnings:
        st.warning(frame.plain(message[:1].upper() + message[1:]), icon=":material/warning:")
    phase = history.phase or {}
    if status.state.ended or (history.steps and status.state != State.STARTING):
        if status.state == State.RUNNING and phase.get("message", "").startswith("paused"):
            st.info(f"{frame.plain(phase['message'].capitalize())}. Resume it under **Controls**.", icon=":material/pause_circle:")
        if status.state == State.STOPPING:
            st.info("Stopping: a checkpoint is saved at the next step boundary.", icon=":material/hourglass_bottom:")
        if status.state in (State.QUEUED, State.PREEMPTED) and status.message:
            st.info(f"Waiting to continue: {frame.plain(status.message)}", icon=":material/schedule:")
        if status.state == State.RUNNING and phase.get("total"):
            _phase_bar(phase.get("message", ""), phase.get("done"), phase.get("total"))
        return
    phase = phase if not history.steps else {}  # a resumed run's may be of the attempt before
    label = phase.get("message") or status.message or ("in its first step" if status.state == State.RUNNING else "waiting for the backend")
    waited = time.time() - status.created if status.attempt <= 1 else time.time() - status.updated
    _phase_bar(label, phase.get("done"), phase.get("total"), f" · {text.duration(waited)}")


def _phase_bar(label: str, done: int | None, total: int | None, waited: str = "") -> None:
    """What the run does beside its steps, and how far it is with that."""
    share = min(1.0, done / total) if done is not None and total else 0.0
    counted = f" · {done:,} of {total:,}" if total else ""
    st.progress(share, text=f"{frame.plain(label[:1].upper() + label[1:])}{counted}{waited}")


def answers(run: Run) -> None:
    """The held-out prompts' answers: all at one validation, or one prompt's over the steps."""
    with feed.history(run.dir) as history:
        validations = [v for v in history.validations if v.samples]
    if not validations:
        st.info(
            "Sampled answers appear with the first validation. How many, and how often: `validation.samples`, `validation.every_steps`.",
            icon=":material/forum:",
        )
        return
    view = st.segmented_control(
        "Show", ["Before and after", "One prompt over the steps"], default="Before and after", required=True, key=f"view-{run.id}"
    )
    steps = [v.step for v in validations]
    if view == "Before and after":
        _before_after(validations, steps, run)
    else:
        _over_steps(validations, run)


def _before_after(validations: list[Validation], steps: list[int], run: Run) -> None:
    left, right = st.columns(2)
    first = left.selectbox("Before: step", steps, index=0, key=f"before-{run.id}")
    newest = right.toggle("Follow the newest validation", value=True, key=f"follow-{run.id}")
    second = right.selectbox("After: step", steps, index=len(steps) - 1, key=f"after-{run.id}") if not newest else steps[-1]
    by_step = {v.step: v for v in validations}
    after = {sample["prompt"]: sample["response"] for sample in by_step[second].samples}
    for sample in by_step[first].samples:
        with st.container(border=True, gap="small"):
            st.caption("Prompt")
            st.text(text.visible(gist(sample["prompt"])))
            before_column, after_column = st.columns(2)
            _answer(before_column, f"Step {first}", sample["response"])
            _answer(after_column, f"Step {second}", after.get(sample["prompt"], "(this prompt was not sampled here)"))


def _over_steps(validations: list[Validation], run: Run) -> None:
    prompts = tables.followed(validations)
    prompt = st.selectbox("Prompt", list(prompts), format_func=gist, key=f"prompt-{run.id}")
    for step, response in reversed(prompts[prompt].items()):
        with st.container(border=True):
            _answer(st.container(), f"Step {step}", response)


def sampled(sample: Mapping[str, str]) -> None:
    """A prompt and its answer, of one validation."""
    with st.container(border=True, gap="small"):
        st.caption("Prompt")
        st.text(text.visible(gist(sample["prompt"])))
        st.caption("Answer")
        st.text(text.visible(sample["response"]) or "(empty answer)")


def _answer(column: DeltaGenerator, title: str, response: str) -> None:
    with column:
        st.markdown(f":gray[{title}]")
        st.text(text.visible(response) or "(empty answer)")


def log(run: Run) -> None:
    """The end of one log, refreshed."""
    logs = run.logs()
    if not logs:
        st.info("The log appears when the backend has started the run.", icon=":material/terminal:")
        return
    newest_first = logs[::-1]
    names = [path.name for path in sorted(newest_first, key=lambda path: not (path.name.startswith("actor-0.") and _bytes(path)))]
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    name = left.selectbox("Log file", names, format_func=lambda name: text.visible(text.log_title(name)), key=f"log-{run.id}")
    wanted = right.text_input("Filter lines", key=f"grep-{run.id}", placeholder="any text", live=True)
    path = next(path for path in logs if path.name == name)
    try:
        visible = [text.visible(line) for line in last_lines(path, LOG_LINES)]
    except Unreadable as error:
        st.error(f"Cannot be read: {frame.plain(str(error))}", icon=":material/error:")
        return
    lines = [line for line in visible if not wanted or wanted.lower() in line.lower()]
    with st.container(height=460 if len(lines) > LOG_LINES_SHOWN else "content", border=False, autoscroll=True):
        st.code("\n".join(lines) or ("(no line matches)" if wanted else "(nothing yet)"), language=None)
    st.caption(f"The last {LOG_LINES} lines of {frame.code(path)}")


def _bytes(path: Path) -> int:
    """0 for a log that is gone or that is not read."""
    try:
        return opening.stat(path).st_size
    except (FileNotFoundError, Unreadable):
        return 0


def diagnosed(run: Run) -> bool:
    """Whether the newest validation says more than its metrics."""
    with feed.history(run.dir) as history:
        return bool(history.validations and history.validations[-1].diagnostics)


def diagnostics(run: Run) -> None:
    """What the newest validation's scores tell: calibration, overlap and length for pairs; predicted against given ratings."""
    with feed.history(run.dir) as history:
        newest = next((v for v in reversed(history.validations) if v.diagnostics), None)
    if newest is None or newest.diagnostics is None:
        st.info("Diagnostics appear with the next validation.", icon=":material/troubleshoot:")
        return
    values, metrics = newest.diagnostics, newest.metrics
    st.caption(f"Held-out rows at step {newest.step:,}")
    if values.get("kind") == "regression":
        shown = [each for attribute in values["attributes"] for each in _of_attribute(attribute, metrics)]
    else:
        shown = [
            ("Calibration", _caption(metrics, (M.ACCURACY, M.ECE)), views.calibration(values, frame.theme())),
            ("Scores", _caption(metrics, (M.REWARDS_MARGIN, M.REWARDS_ALL_STD)), views.histogram(values, frame.theme())),
            ("Length", _caption(metrics, _LENGTH), views.lengths(values, frame.theme())),
        ]
    width = 3 if len(shown) % 3 == 0 else 2
    for start in range(0, len(shown), width):
        for (title, caption, figure), column in zip(shown[start : start + width], st.columns(width), strict=False):
            with column.container(border=True):
                st.markdown(f"**{frame.plain(title)}**", anchors=False)
                st.caption(caption)
                st.plotly_chart(figure, theme=None, config={"displayModeBar": False}, key=f"diagnostics-{title}-{run.id}", alt=f"{title}: {caption}")


def _of_attribute(attribute: Ratings, metrics: Mapping[str, float]) -> list[tuple[str, str, go.Figure]]:
    """Title, caption and figure of one attribute's panels: an ordinal head's have its calibration and its confusion too."""
    name = attribute["name"]
    panels = [(name, _caption(metrics, (M.MAE_OF(name), M.SPEARMAN_OF(name))), views.ratings(attribute, frame.theme()))]
    if "calibration" in attribute and "confusion" in attribute:
        panels.append((f"{name}: calibration", _caption(metrics, (M.ECE_OF(name),)), views.reliability(attribute, frame.theme())))
        panels.append((f"{name}: levels", f"{attribute['rated']:,} rated answers", views.confusion(attribute, frame.theme())))
    return panels


_LENGTH = (M.LENGTH_SPEARMAN, M.ACCURACY_LONGER_CHOSEN, M.ACCURACY_SHORTER_CHOSEN)


def _caption(metrics: Mapping[str, float], names: tuple[str, ...]) -> str:
    return " · ".join(f"{catalogue.label(name)} {text.number(metrics[name], 3)}" for name in names if name in metrics)


def settings(run: Run) -> None:
    """The resolved settings, and the command that starts the same run again."""
    if bad := problem(run.dir):
        st.error(f"Cannot be read: {frame.plain(str(bad))}", icon=":material/error:")
        return
    st.markdown("**The same run from a terminal**")
    st.code(command_line.command_of(spec_tree(run.dir)), language="bash", wrap_lines=True)
    st.markdown("**Resolved settings**")
    st.code(text.visible(opening.read_text(run.dir.spec_path)), language="yaml")


LOG = Tab("Log", "terminal", log)
SETTINGS = Tab("Settings", "tune", settings, every_s=None)
DIAGNOSTICS = Tab("Diagnostics", "troubleshoot", diagnostics)
"""Tabs of several kinds of job."""
