"""The routes that ask endpoints, what they refuse, and presets."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from ui import asking

from tests import fake_endpoint
from tests.fake_endpoint import Endpoint
from workbench.rundir import permission


@pytest.fixture
def endpoint(runs) -> Iterator[Endpoint]:
    with fake_endpoint.serving(runs) as endpoint:
        yield endpoint


@pytest.fixture
def client(runs, tmp_path, monkeypatch) -> TestClient:
    monkeypatch.setenv("WORKBENCH_STATE", str(tmp_path / "state"))
    return TestClient(Starlette(routes=asking.routes()))


def question(endpoint: Endpoint, name: str, model: str = "steerlm", prompt: str = "What is a map?", **attributes: float) -> dict[str, object]:
    return {"id": name, "endpoint": endpoint.run.id, "model": model, "messages": [{"role": "user", "content": prompt}], "attributes": attributes}


def events(answer) -> list[dict]:
    assert answer.status_code == 200, answer.text
    return [json.loads(part.removeprefix("data: ")) for part in answer.text.split("\n\n") if part.startswith("data: ")]


def test_several_questions_in_one_stream(client, endpoint):
    asked = [question(endpoint, "a", verbosity=0), question(endpoint, "b", verbosity=3), question(endpoint, "c", "base")]
    answer = client.post("/ask/answers", json={"questions": asked})
    assert answer.headers["content-type"].startswith("text/event-stream")
    seen = events(answer)
    texts = {name: "".join(event.get("text", "") for event in seen if event["id"] == name) for name in "abc"}
    assert {name: len(text.split()) for name, text in texts.items()} == {"a": 4, "b": 27, "c": 17}
    assert texts["c"].startswith("BASE")
    ends = {event["id"]: event for event in seen if "end" in event}
    assert {name: (end["end"], end["tokens"]) for name, end in ends.items()} == {"a": ("stop", 4), "b": ("stop", 27), "c": ("stop", 17)}
    measured = {event["id"]: event["measured"]["verbosity"] for event in seen if "measured" in event}
    assert measured == {"a": 0, "b": 3, "c": 2}
    assert [body.get("attributes") for body in sorted(endpoint.asked, key=lambda body: str(body.get("attributes")))] == [
        None,
        {"verbosity": 0.0},
        {"verbosity": 3.0},
    ]


def test_what_fails_says_why_and_disturbs_no_other(client, endpoint):
    asked = [question(endpoint, "a", "base", verbosity=1), question(endpoint, "b"), question(endpoint, "c", prompt="break it")]
    asked.append({**question(endpoint, "d"), "endpoint": "nobody"})
    seen = events(client.post("/ask/answers", json={"questions": asked}))
    errors = {event["id"]: event["error"] for event in seen if "error" in event}
    assert errors.keys() == {"a", "c", "d"}
    assert errors["a"] == "base was not trained with attributes"
    assert "in the middle of an answer" in errors["c"]
    assert "nobody" in errors["d"]
    assert [event["id"] for event in seen if "end" in event] == ["b"]


def test_an_endpoint_that_measures_nothing_says_so(client, endpoint):
    endpoint.measures = False
    seen = events(client.post("/ask/answers", json={"questions": [question(endpoint, "a")]}))
    assert [event["unmeasured"] for event in seen if "unmeasured" in event] == [
        "this endpoint measures nothing: start it with job.measure or job.rules"
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"questions": []}, "questions"),
        ({"questions": [{"id": "a"}]}, "questions.0.endpoint"),
        ({"questions": [{"id": "../x", "endpoint": "e", "model": "m", "messages": [{"role": "user", "content": ""}]}]}, "questions.0.id"),
        ({"questions": [{"id": "a", "endpoint": "e", "model": "m", "messages": [{"role": "tool", "content": ""}]}]}, "role"),
        ({"questions": [{"id": "a", "endpoint": "e", "model": "m", "messages": [{"role": "user", "content": ""}]}] * 2}, "same id"),
        (
            {"questions": [{"id": "a", "endpoint": "e", "model": "m", "messages": [{"role": "user", "content": ""}], "sampling": {"top_p": 0}}]},
            "top_p",
        ),
    ],
)
def test_wrong_questions_are_refused(client, body, reason):
    answer = client.post("/ask/answers", json=body)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_too_much_is_refused(client):
    assert client.post("/ask/answers", content=b" " * (asking.LARGEST + 1)).status_code == 400


def test_an_app_that_only_reads_asks_nobody(client, endpoint, monkeypatch):
    monkeypatch.setattr(permission, "_reason", "only reads")
    for path, body in (
        ("answers", {"questions": [question(endpoint, "a")]}),
        ("stop", {"ids": []}),
        ("presets", {"name": "x", "attributes": {"a": 1}}),
    ):
        assert client.post(f"/ask/{path}", json=body).status_code == 403
    assert client.get("/ask/presets").status_code == 403
    assert endpoint.asked == []


def test_reach(client, endpoint):
    def reach(**attributes):
        return client.post("/ask/reach", json={"endpoint": endpoint.run.id, "model": "steerlm", "attributes": attributes})

    assert reach(verbosity=2, quality=3, humor=0).json()["reachable"] is True
    far = reach(verbosity=2, quality=4, humor=2).json()
    assert (far["reachable"], far["rows"]) == (False, 0)
    assert sum(abs(far["nearest"][name] - value) for name, value in {"verbosity": 2, "quality": 4, "humor": 2}.items()) == 1
    assert client.post("/ask/reach", json={"endpoint": endpoint.run.id, "model": "base", "attributes": {"verbosity": 1}}).status_code == 400
    assert "no attribute" in reach(charm=1).json()["error"]


def test_presets_are_kept_by_name(client):
    assert client.get("/ask/presets").json() == {"presets": {}}
    client.post("/ask/presets", json={"name": " terse ", "attributes": {"verbosity": 0}})
    kept = client.post("/ask/presets", json={"name": "../etc/passwd", "attributes": {"verbosity": 4}}).json()
    assert kept == {"presets": {"../etc/passwd": {"verbosity": 4}, "terse": {"verbosity": 0}}}
    assert client.post("/ask/presets", json={"name": "../etc/passwd", "attributes": None}).json() == {"presets": {"terse": {"verbosity": 0}}}
    for name, attributes in (("", {"a": 1}), ("x" * 61, {"a": 1}), ("line\nbreak", {"a": 1}), ("none", {}), ("gone", None)):
        assert client.post("/ask/presets", json={"name": name, "attributes": attributes}).status_code == 400
    assert client.get("/ask/presets").json() == {"presets": {"terse": {"verbosity": 0}}}
