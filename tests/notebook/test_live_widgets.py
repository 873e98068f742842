"""The live widgets' Python side: what they send to a view, and when there is a thread. The browser's side: test_jupyterlab.py."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.app import synthetic, synthetic_rollouts
from tests.waiting import until
from workbench.jobs.runs import Run
from workbench.notebook.widgets import attached
from workbench.notebook.widgets.compare import Compare
from workbench.notebook.widgets.live_run import LiveRun
from workbench.notebook.widgets.rollouts import Rollouts
from workbench.notebook.widgets.showing import Shown
from workbench.rundir.events import EventWriter
from workbench.rundir.store import State


class Page:
    """What a browser would get from a widget, and what it would send."""

    def __init__(self, widget: Shown, part: Any) -> None:
        self.widget, self.part = widget, part
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []
        part.send = lambda content, buffers=None: self.sent.append((content, buffers or []))

    def say(self, kind: str, view: str = "a", **more: object) -> None:
        self.part._on_message(None, {"kind": kind, "view": view, **more}, [])

    def got(self, view: str = "a") -> list[tuple[dict[str, Any], list[bytes]]]:
        return [(content, buffers) for content, buffers in self.sent if view in content.get("to", (view,)) and content["kind"] != "alive"]

    def curve(self, number: int, metric: str = "loss", view: str = "a") -> tuple[list[float], list[float]]:
        """The raw points of a metric in the message of this number."""
        content, buffers = self.got(view)[number]
        x, y, count = content["train"][metric]["raw"]
        return np.frombuffer(buffers[0])[x : x + count].tolist(), np.frombuffer(buffers[1], "f4")[y : y + count].tolist()

    def threads(self) -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith(("live view", "rollouts of", "comparison"))]


@pytest.fixture
def pages() -> Iterator[list[Page]]:
    """Pages that are closed, with their threads, whatever the test does."""
    opened: list[Page] = []
    yield opened
    for page in opened:
        page.widget.close()
    until(lambda: not any(page.threads() for page in opened))


@pytest.fixture
def live(tmp_path, pages):
    def show(**how: Any) -> tuple[Any, Page]:
        run = synthetic.make(tmp_path, **{"steps": 25, "total": 50, **how})
        widget = LiveRun(Run(run))
        pages.append(Page(widget, widget.charts))
        return run, pages[-1]

    return show


def test_a_view_gets_all_first_and_then_what_is_new(live) -> None:
    run, page = live()
    assert (page.threads(), page.sent) == ([], [])
    page.say("hello", number=1)
    until(page.got)
    assert len(page.threads()) == 1
    first, _ = page.got()[0]
    assert (first["kind"], first["reset"], first["going"], first["to"]) == ("curves", True, True, ["a"])
    assert page.curve(0)[0] == list(range(1, 26))
    assert page.curve(0)[1] == pytest.approx([synthetic.step_metrics(step)["loss"] for step in range(1, 26)], rel=1e-6)
    synthetic.write_steps(run, 26, 27)
    until(lambda: len(page.got()) > 1)
    assert page.curve(1)[0] in ([26], [26, 27])
    assert page.got()[1][0]["since"] == first["cursor"]
    page.say("bye")
    until(lambda: not page.threads())


def test_a_second_view_gets_all_and_the_first_nothing_twice(live) -> None:
    run, page = live()
    page.say("hello", number=1)
    until(page.got)
    page.say("hello", "b", number=1)
    until(lambda: page.got("b"))
    assert (len(page.got()), page.got("b")[0][0]["reset"]) == (1, True)
    synthetic.write_steps(run, 26, 26)
    until(lambda: len(page.got()) > 1 and len(page.got("b")) > 1)
    assert page.curve(1) == page.curve(1, view="b")
    page.say("bye")
    assert len(page.threads()) == 1
    page.say("bye", "b")
    until(lambda: not page.threads())


def test_a_hello_that_is_repeated_is_answered_once(live) -> None:
    _, page = live(state=State.COMPLETED)
    for number in (1, 1, 2):
        page.say("hello", number=number)
    assert [content["reset"] for content, _ in page.got()] == [True, True]


def test_a_run_that_has_ended_has_no_thread(live) -> None:
    _, page = live(state=State.COMPLETED)
    page.say("hello", number=1)
    assert page.got()[0][0]["going"] is False
    assert page.threads() == []


def test_the_end_of_a_run_ends_the_thread_and_a_resume_goes_on(live) -> None:
    run, page = live()
    page.say("hello", number=1)
    until(page.got)
    run.update(state=State.STOPPED)
    until(lambda: not page.threads())
    assert page.got()[-1][0]["going"] is False
    assert page.widget.buttons.resume.layout.display is None
    run.update(state=State.RUNNING)
    synthetic.write_steps(run, 26, 26)
    page.widget.refresh()  # as after each cell
    until(lambda: page.got()[-1][0]["going"])
    assert len(page.threads()) == 1


def test_steps_that_a_resume_took_back_are_replaced(live) -> None:
    run, page = live()
    page.say("hello", number=1)
    until(page.got)
    writer = EventWriter(run)
    writer.write("state", state="running", step=20, total_steps=50)
    writer.write("step", step=21, metrics={"loss": 9.0})
    until(lambda: page.got()[-1][0]["cursor"].split(".")[2] == "21")
    assert page.got()[-1][0]["reset"]
    assert page.curve(-1)[0] == list(range(1, 22))


def test_a_view_that_no_longer_beats_is_taken_for_gone(live, monkeypatch) -> None:
    _, page = live()
    page.say("hello", number=1)
    until(page.got)
    monkeypatch.setattr(attached, "LOST_S", -1.0)
    until(lambda: not page.threads())
    monkeypatch.undo()
    page.say("beat")
    until(lambda: len(page.got()) > 1)
    assert page.got()[1][0]["reset"], "what it knew is too old"


def test_another_smoothing_starts_the_curves_over(live) -> None:
    _, page = live(state=State.COMPLETED)
    page.say("hello", number=1)
    page.widget.charts.choose(0.0, "time")
    page.widget._attached.serve()
    content, _ = page.got()[1]
    assert (content["reset"], content["axis"], content["train"]["loss"]["smooth"]) == (True, "time", None)


def test_a_damaged_event_is_named_with_its_place(live) -> None:
    run, page = live()
    with run.events_path().open("a") as file:
        file.write('{"kind": 7}\n')
    page.widget._show()
    assert "The newest events cannot be read" in page.widget.head.value
    assert "actor.jsonl" in page.widget.head.value


def test_a_run_that_cannot_be_read_says_so_and_goes_on_when_it_can(live) -> None:
    run, page = live()
    kept = run.path.joinpath("status.json").read_text()
    run.path.joinpath("status.json").write_text("[]")
    page.widget._show()
    assert "status.json" in page.widget.trouble.value
    run.path.joinpath("status.json").write_text(kept)
    page.widget._show()
    assert page.widget.trouble.value == ""


def test_buttons_ask_and_say_why_not(live) -> None:
    run, page = live()
    widget = page.widget
    widget.buttons.pause.click()
    assert [request["request"] for request in map(json.loads, run.path.joinpath("control.jsonl").read_text().splitlines())] == ["pause"]
    assert (widget.buttons.pause.layout.display, widget.buttons.unpause.layout.display) == ("none", None)
    widget.buttons.kill.click()
    assert widget.buttons.confirm.layout.display is None
    assert run.status.state == State.RUNNING, "it asks first"
    widget.buttons.keep.click()
    run.update(state=State.COMPLETED)
    widget.buttons.stop.click()
    assert "has already completed" in widget.said.value


def test_live_settings_are_asked_for(live) -> None:
    run, page = live()
    settings = page.widget.settings
    name = next(iter(settings.fields))
    settings.fields[name].value *= 2
    settings.apply.click()
    (request,) = map(json.loads, run.path.joinpath("control.jsonl").read_text().splitlines())
    assert request["values"] == {name: settings.fields[name].value}


def test_what_is_shown_is_escaped(tmp_path) -> None:
    run = synthetic.make(tmp_path, steps=3, message="<script>alert(1)</script>", state=State.FAILED)
    widget = LiveRun(Run(run))
    assert "<script>" not in widget.head.value + str(widget._repr_mimebundle_())
    assert "&lt;script&gt;" in widget.head.value


def test_rollouts_are_searched_chosen_and_come_in(tmp_path, pages) -> None:
    run = synthetic_rollouts.make(tmp_path, 3)
    widget = Rollouts(Run(run))
    page = Page(widget, widget.table)
    pages.append(page)
    page.say("hello", number=1)
    until(lambda: page.sent)
    assert page.sent[-1][0]["rows"][0]["key"] == "3:0"
    widget.search.value = "hash table"
    assert {row["cells"][2] for row in page.sent[-1][0]["rows"]} == {"Explain what a hash table is to a child."}
    page.say("choose", key="3:1")
    assert page.sent[-1][0]["chosen"] == "3:1"
    assert "wb-token" in widget.tokens.value
    widget.quantity.value = "kl"
    assert "KL to the reference" in widget.tokens.value
    sent = len(page.sent)
    synthetic_rollouts.write(run, 4)
    until(lambda: len(page.sent) > sent)
    assert page.sent[-1][0]["rows"][0]["key"] == "4:0"


def test_several_runs_are_compared_while_one_goes_on(tmp_path, pages) -> None:
    first = synthetic.make(tmp_path, "one", 20, state=State.COMPLETED)
    second = synthetic.make(tmp_path, "two", 10, overrides=("algorithm.beta=0.3",))
    widget = Compare([Run(first), Run(second)])
    page = Page(widget, widget.charts)
    pages.append(page)
    page.say("hello", number=1)
    until(page.got)
    names = list(widget.runs)
    assert page.curve(0, names[0])[0] == list(range(1, 21))
    synthetic.write_steps(second, 11, 11)
    until(lambda: len(page.got()) > 1)
    assert (list(page.got()[1][0]["train"]), page.curve(1, names[1])[0]) == ([names[1]], [11])
    assert "algorithm.beta" in widget.settings.value
    widget.metric.value = ("accuracy", True)
    until(lambda: page.got()[-1][0].get("charts"))
    assert page.got()[-1][0]["charts"][0]["group"] == "Held-out rows"
    page.say("bye")
    until(lambda: not page.threads())
