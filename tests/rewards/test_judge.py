"""The judge as a kind of reward: what it asks and what becomes of the verdicts, by hand arithmetic and of an endpoint that replies by a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.chat_server import answering
from tests.waiting import until
from workbench.models import chat_completions
from workbench.models.roles.judge import JudgeAtUrl, read_verdict, verdicts_of
from workbench.rewards.base import Finished, Given, Scores, Verdict, Waiting
from workbench.rewards.kinds import judge

pytestmark = pytest.mark.usefixtures("alone")


def answers(*groups: Sequence[str]) -> list[Finished]:
    return [Finished(i, f"question {i}", response, {}, (1,), (2,)) for i, group in enumerate(groups) for response in group]


def between(question: str) -> tuple[str, str]:
    """The two answers of a pairwise question."""
    first = question.partition("=== Answer A\n")[2].partition("\n\n=== Answer B\n")
    return first[0], first[2].partition("\n\n=== Your task")[0]


def longer(question: str) -> str:
    first, second = between(question)
    return "A" if len(first) > len(second) else "B"


def asking(rule: Callable[[str], str]) -> Callable[[Sequence[str], Sequence[str]], list[Verdict | None]]:
    return lambda questions, options: [read_verdict(rule(question), options) for question in questions]


def test_win_rates_of_a_judge_by_length() -> None:
    """Lengths 3, 2, 1: three pairs, of which the longest wins two, the second one, the last none; another prompt's answers are not among them."""
    found = judge.pairwise(answers(["aaa", "bb", "c"], ["dddd", "e"]), judge.Config(model="m"), asking(longer))
    assert isinstance(found, Scores)
    assert list(found.values) == [1.0, 0.5, 0.0, 1.0, 0.0]
    assert found.tallies == {"judge_undecided": (0.0, 4.0)}


def test_a_judge_that_likes_the_first_place_decides_nothing() -> None:
    """Each pair is asked in both orders; who always says A contradicts itself, and each answer gets a half of every comparison."""
    asked: list[str] = []

    def always_first(question: str) -> str:
        asked.append(question)
        return "A"

    found = judge.pairwise(answers(["x", "yy"]), judge.Config(model="m"), asking(always_first))
    assert isinstance(found, Scores)
    assert [between(question) for question in asked] == [("x", "yy"), ("yy", "x")]
    assert list(found.values) == [0.5, 0.5]
    assert found.tallies == {"judge_undecided": (1.0, 1.0)}


def test_no_verdict_is_made_up() -> None:
    """One order without a verdict leaves the pair undecided; an answer alone with its prompt is compared with nothing and unknown; a tie is no verdict."""
    found = judge.pairwise(answers(["x", "yy"], ["z"]), judge.Config(model="m"), asking(lambda q: longer(q) if between(q)[0] == "x" else "who knows"))
    assert isinstance(found, Scores)
    assert list(found.values) == [0.5, 0.5, None]
    tie = judge.pairwise(answers(["x", "yy"]), judge.Config(model="m"), lambda questions, options: [np.array([0.5, 0.5])] * len(questions))
    assert isinstance(tie, Scores)
    assert list(tie.values) == [0.5, 0.5]
    for reply, named in {
        "A": 0,
        "[[B]]": 1,
        "A is shorter.\nVerdict: B": 1,
        "A or B": None,
        "Both": None,
        "": None,
        "a": None,
        "**A**\n\n": 0,
        "BA": None,
    }.items():
        verdict = read_verdict(reply, ["A", "B"])
        assert (None if verdict is None else int(verdict.argmax())) == named, reply


def test_scores_are_expectations_as_a_share() -> None:
    """Levels 1 to 5. Log-probabilities log 1/2 of 4 and 5, none of others: E = 4.5, (4.5 - 1) / 4 = 0.875. "4" of an endpoint: 0.75. NaN: unknown."""
    logprobs = np.log(np.array([[1e-30, 1e-30, 1e-30, 0.25, 0.25], [np.nan] * 5], np.float32))
    found = judge.scored(answers(["x", "y"]), judge.Config(model="m", mode="scored"), lambda questions, options: verdicts_of(logprobs))
    assert isinstance(found, Scores)
    assert list(found.values) == [pytest.approx(0.875), None]
    assert found.tallies == {"judge_undecided": (1.0, 2.0)}
    named = judge.scored(answers(["x"]), judge.Config(model="m", mode="scored"), asking(lambda question: "4"))
    assert isinstance(named, Scores)
    assert list(named.values) == [0.75]


def test_in_a_ring_each_answer_meets_as_many_others() -> None:
    for opponents, each in ((0, 5), (1, 2), (2, 2), (3, 4), (4, 4), (99, 5)):
        pairs = list(judge._pairs(answers(["a"] * 6), opponents))
        assert len(set(pairs)) == len(pairs)
        assert [sum(i in pair for pair in pairs) for i in range(6)] == [each] * 6, opponents


def test_texts_stay_texts() -> None:
    """A prompt or an answer that spells a field, a brace or an attribute is put in as it is, and what it spells is not filled."""
    nasty = "{second} {rubric} {0.__class__} {response!r} {{"
    asked = judge.question(judge.Config(model="m"), "{first}", first=nasty, second="two")
    assert between(asked) == (nasty, "two")
    assert "=== Conversation\n{first}\n" in asked
    own = judge.Config(model="m", mode="scored", template='{prompt} {"score": 3} {response} of {levels}', levels=3)
    assert judge.question(own, "why", response=nasty) == f'why {{"score": 3}} {nasty} of 3'


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "a judge is a model or a url"),
        ({"model": "m", "url": "http://h/v1"}, "a judge is a model or a url"),
        ({"url": "ftp://h/v1"}, "expected http://"),
        ({"url": "http://ada:secret@h/v1"}, "does not go into the url"),
        ({"model": "m", "template": "{prompt} {first}"}, "the template has no {second}"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        judge.Config(**settings)
    assert judge.problems(judge.Config(model="m"), 1)[0][0] == "mode"
    assert not judge.problems(judge.Config(model="m", mode="scored"), 1)


def test_an_endpoint_that_fails_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP 500, a busy 429, a page of HTML and a broken connection pass; the verdicts are those of an endpoint that is well. The key is sent, and said nowhere."""
    monkeypatch.setattr(chat_completions, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setenv("JUDGE_KEY", "hush")
    failures = [(500, b"oops", {}), (429, b"", {"Retry-After": "0"}), (200, b"<html>", {}), (200, b"{}", {"Content-Length": "9"})]
    with answering(longer, failures) as server:
        cfg = judge.Config(url=server.url, url_model="tall", api_key_env="JUDGE_KEY", concurrency=2, timeout_s=2)
        at_url = JudgeAtUrl(cfg, "helpful")
        score = judge.scorer("helpful", cfg, Given(lambda answers: [], at_url))
        found = until(lambda: None if isinstance(said := score(answers(["aaa", "bb", "c"])), Waiting) else said)
        assert isinstance(found, Scores)
        assert list(found.values) == [1.0, 0.5, 0.0]
        body, headers = server.asked[0]
        assert (body["model"], body["temperature"], headers["Authorization"]) == ("tall", 0, "Bearer hush")
        assert len(server.asked) == 6 + 4
        assert "hush" not in repr(cfg)


def test_an_endpoint_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it fails it is waited for with a reason; after give_up_after_s the error names it and what it said. A refused key, and 400s alone, end it at once."""
    monkeypatch.setattr(chat_completions, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr("workbench.models.roles.judge.PATIENCE_S", 0.3)
    failing: list[tuple[int, bytes, dict[str, str]]] = [(503, b"loading", {})] * 1000
    with answering(longer, failing) as server:
        patient = JudgeAtUrl(judge.Config(url=server.url), "helpful")
        said = until(lambda: None if "(HTTP" not in (said := patient(["?"], ["A", "B"])).reason else said)
        assert said.reason.startswith(f"the judge of helpful at {server.url}: 0 of 1 questions answered (HTTP 503")
        at_url = JudgeAtUrl(judge.Config(url=server.url, give_up_after_s=0.5), "helpful")
        with pytest.raises(ValueError, match=r"no reply within 0\.5 s of the first failure; the last: HTTP 503"):
            until(lambda: not isinstance(at_url(["?"], ["A", "B"]), Waiting))
    for status, match in ((401, "HTTP 401 .*look at url, url_model and api_key_env"), (400, "refuses every question: HTTP 400"), (302, "HTTP 302")):
        with answering(longer, [(status, b"no", {"Location": "http://127.0.0.1:1/"})]) as server, pytest.raises(ValueError, match=match):
            JudgeAtUrl(judge.Config(url=server.url), "helpful")(["?"], ["A", "B"])


def test_one_refused_question_has_no_verdict_and_the_key_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda question: None if question == "silent" else "B", [(400, b"too long", {})]) as server:
        at_url = JudgeAtUrl(judge.Config(url=server.url, concurrency=1), "helpful")
        found = at_url(["long", "short", "silent"], ["A", "B"])
        assert not isinstance(found, Waiting)
        assert [None if verdict is None else verdict.tolist() for verdict in found] == [None, [0, 1], None]
        monkeypatch.delenv("JUDGE_KEY", raising=False)
        with pytest.raises(ValueError, match="api_key_env=JUDGE_KEY is not set"):
            JudgeAtUrl(judge.Config(url=server.url, api_key_env="JUDGE_KEY"), "helpful")
