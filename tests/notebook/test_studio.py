"""The Steer and Chat widgets' Python side, over an endpoint that needs no model. The browser's side: test_sliders_in_jupyterlab.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from tests import fake_endpoint
from tests.fake_endpoint import Endpoint
from tests.waiting import until
from workbench.notebook.widgets.chat import Chat
from workbench.notebook.widgets.sliders import AttributeSliders
from workbench.notebook.widgets.studio import Studio


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("WORKBENCH_STATE", str(tmp_path / "state"))
    (tmp_path / "runs").mkdir()
    with fake_endpoint.serving(tmp_path / "runs") as endpoint:
        yield endpoint


def sent_by(widget: Studio) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    widget.panel.send = lambda content, buffers=None: sent.append(content)
    return sent


def say(widget: Studio, kind: str, **more: object) -> None:
    widget.panel._on_message(None, {"kind": kind, "request": "r", **more}, [])


def question(endpoint: Endpoint, prompt: str = "What is a map?", **attributes: float) -> dict[str, object]:
    return {"id": "q", "endpoint": endpoint.run.id, "model": "steerlm", "messages": [{"role": "user", "content": prompt}], "attributes": attributes}


def test_cells_ask_and_sweep(endpoint: Endpoint) -> None:
    sliders = AttributeSliders(endpoint.run.id)
    assert sliders.models == ["steerlm", "base", "steerlm-2"]
    assert sliders.attributes["verbosity"] == (0, 1, 2, 3, 4)
    answer = sliders.ask("What is a map?", {"verbosity": 0}, system="Be kind.", max_tokens=9)
    assert (str(answer), answer.requested, answer.finish_reason) == ("STEERLM A map shows", {"verbosity": 0.0}, "stop")
    assert answer.measured == {"verbosity": 0, "quality": 2.6}
    assert endpoint.asked[-1]["messages"][0] == {"role": "system", "content": "Be kind."} and endpoint.asked[-1]["max_tokens"] == 9
    table = sliders.sweep("What is a map?", "verbosity", {"humor": 1}, model="steerlm-2")
    assert table.requested.tolist() == table.measured.tolist() == [0, 1, 2, 3, 4]
    assert table.words.tolist() == [1 + words for words in fake_endpoint.WORDS]
    assert len(sliders.rows) == 6 and sliders.rows[0]["response"] == "STEERLM A map shows"
    for wrong, reason in (
        ({"model": "other"}, "serves no 'other'"),
        ({"temperature": -1}, "temperature"),
        ({"model": "base", "attributes": {"verbosity": 1}}, "not trained with"),
    ):
        with pytest.raises(ValueError, match=reason):
            sliders.ask("What?", **wrong)
    with pytest.raises(ValueError, match="no attribute 'charm'; it has: verbosity"):
        sliders.sweep("What?", "charm")
    assert "requested verbosity 4, humor 1" in sliders.picture() or "requested humor 1, verbosity 4" in sliders.picture()
    sliders.close()


def test_a_chat_continues_and_keeps_what_was_said(endpoint: Endpoint) -> None:
    chat = Chat(endpoint.run.id)
    first = chat.say("What is a map?", {"verbosity": 1})
    chat.say("And a compass?")
    assert [turn["content"] for turn in endpoint.asked[-1]["messages"]] == ["What is a map?", first.text, "And a compass?"]
    with pytest.raises(ValueError, match="in the middle of an answer"):
        chat.say("Now break.")
    assert [turn["role"] for turn in chat.messages] == ["user", "assistant"] * 2
    chat.close()


def test_the_panel_streams_stops_and_answers(endpoint: Endpoint) -> None:
    sliders = AttributeSliders(endpoint.run)
    sent = sent_by(sliders)
    say(sliders, "ask", questions=[question(endpoint, verbosity=1)])
    until(lambda: sent and sent[-1]["kind"] == "reply")
    assert {content["to"] for content in sent} == {"r"}
    events = [event for content in sent if content["kind"] == "events" for event in content["events"]]
    assert "".join(event.get("text", "") for event in events) == "STEERLM A map shows where things are and how far"
    assert sliders.answers[0].measured == {"verbosity": 1, "quality": 2.6}

    sent.clear()
    say(sliders, "ask", questions=[question(endpoint, "Please hold.")])
    until(lambda: any("text" in event for content in sent for event in content.get("events", ())))
    say(sliders, "stop", ids=["q"])
    until(lambda: sent[-1]["kind"] == "reply")
    assert sliders.answers[-1].finish_reason == "stopped"
    until(lambda: endpoint.cancelled == 1)

    sent.clear()
    say(sliders, "reach", endpoint=endpoint.run.id, model="steerlm", attributes={"quality": 4, "humor": 2})
    say(sliders, "preset", name="plain", attributes={"humor": 0})
    say(sliders, "presets")
    say(sliders, "preset", name="plain", attributes=None)
    say(sliders, "preset", name="", attributes={"humor": 0})
    say(sliders, "ask", questions=[{"id": "q"}])
    assert sent[0]["value"]["reachable"] is False
    assert [content.get("value") for content in sent[1:4]] == [{"plain": {"humor": 0}}, {"plain": {"humor": 0}}, {}]
    assert "1 to 60" in sent[4]["error"] and sent[5]["error"] == "Field required"
    sliders.close()


def test_what_does_not_serve_says_so(endpoint: Endpoint) -> None:
    sliders = wb.AttributeSliders(endpoint.run.id)
    sliders.stop()
    waiting = fake_endpoint.made(endpoint.run.path.parent, "late", message="loading the model")
    with pytest.raises(ValueError, match="not serving yet: loading the model"):
        wb.AttributeSliders(waiting.id)
    with pytest.raises(ValueError, match="not serving"):
        sliders.ask("What is a map?")
