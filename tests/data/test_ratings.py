"""Ratings as people publish them: HelpSteer 1 to 3, OASST's labels, NeMo-Aligner's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.rows import TREE, full, reply, said, write
from workbench.data.readers import DataError, read
from workbench.data.rows import Conversation, Group, Preference, Rated

HELPSTEER = {"helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 2, "verbosity": 1}
TURNS = "Who?\n<extra_id_1>Assistant\nMe.\n<extra_id_1>User\nWhy?"


def test_helpsteers_prompts_of_several_turns(tmp_path: Path) -> None:
    (row,) = read(write(tmp_path, {"prompt": TURNS, "response": "So.", **HELPSTEER}), "rated").rows
    assert isinstance(row, Rated)
    assert [(turn.role, turn.content) for turn in row.prompt] == [("user", "Who?"), ("assistant", "Me."), ("user", "Why?")]
    assert row.attributes == HELPSTEER
    (talk,) = read(write(tmp_path, {"prompt": TURNS, "response": "So.", **HELPSTEER}), "conditioned").rows
    assert isinstance(talk, Conversation)
    assert [turn.ratings for turn in talk.messages] == [{}, {}, {}, HELPSTEER]
    with pytest.raises(DataError, match="turns of User and Assistant in turn"):
        read(write(tmp_path, {"prompt": "Who?\n<extra_id_1>User\nWhy?", "response": "So.", **HELPSTEER}), "rated")


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"prompt": "Who?", "response_1": "a", "response_2": "b", "preference_strength": -3}, "helpsteer2_preference"),
        ({"context": [{"role": "user", "content": "Who?"}], "response1": "a", "response2": "b", "overall_preference": -3}, "helpsteer3"),
    ],
)
def test_helpsteers_preferences(tmp_path: Path, row: dict[str, Any], format: str) -> None:
    """Negative: the first is better, by so much. Who prefers neither gives no pair, and is counted."""
    key = next(reversed(row))
    rows = read(write(tmp_path, row, {**row, key: 1}, {**row, key: 0}, {**row, key: -100}), "preference")
    assert rows.format == format
    assert [said(each) for each in rows.rows] == [["U Who?", "a", "b"], ["U Who?", "b", "a"]]
    assert [each.chosen_reward for each in rows.rows if isinstance(each, Preference)] == [3, 1]
    assert any("2 of 4 rows prefer neither answer" in note for note in rows.notes)
    with pytest.raises(DataError, match="a preference from -3 to 3"):
        read(write(tmp_path, {**row, key: 7}), "preference")


def test_oassts_labels(tmp_path: Path) -> None:
    """round(4 value), half to even, of the four that SteerLM learns; who has none is not learnt from."""
    labels = {"quality": {"value": 0.625, "count": 3}, "toxicity": {"value": 0.1, "count": 3}, "humor": None, "spam": {"value": 0.0, "count": 3}}
    tree = {"prompt": {**TREE, "replies": [reply("good", rank=0, labels=labels), reply("bare", rank=1)]}}
    (rated,) = read(write(tmp_path, tree), "rated").rows
    assert isinstance(rated, Rated)
    assert (rated.response, rated.attributes) == ("good", {"quality": 2.0, "toxicity": 0.0})
    (talk,) = read(write(tmp_path, tree), "conditioned", on_bad_row="skip").rows[:1]
    assert isinstance(talk, Conversation)
    assert talk.messages[-1].ratings == rated.attributes
    with pytest.raises(DataError, match="labels of a reply: quality, toxicity, humor, creativity"):
        read(write(tmp_path, {"prompt": {**TREE, "replies": [reply("bare", rank=1)]}}), "rated")


def test_nemo_aligners_turns(tmp_path: Path) -> None:
    """Each answer with a label; the others stay without."""
    turns = [
        {"from": "User", "value": "Who?", "label": None},
        {"from": "Assistant", "value": "Me.", "label": "quality:4,humor:0"},
        {"from": "User", "value": "Why?", "label": None},
        {"from": "Assistant", "value": "So.", "label": None},
    ]
    row = {"system": "Brief.", "mask": "User", "type": "VALUE_TO_TEXT", "conversations": turns}
    (talk,) = read(write(tmp_path, row), "conditioned").rows
    assert isinstance(talk, Conversation)
    assert [turn.ratings for turn in talk.messages] == [{}, {}, {"quality": 4, "humor": 0}, {}, {}]
    (rated,) = read(write(tmp_path, row), "rated").rows
    assert full(rated)[:2] == ["S Brief.", "U Who?"]
    with pytest.raises(DataError, match='expected type: "VALUE_TO_TEXT"'):
        read(write(tmp_path, {**row, "type": "TEXT_TO_VALUE"}), "conditioned")


def test_nemo_aligners_regression_rows(tmp_path: Path) -> None:
    text = "<extra_id_0>System\n\n<extra_id_1>User\nWho?\n<extra_id_1>Assistant\nMe.\n<extra_id_2>"
    (row,) = read(write(tmp_path, {"text": text, "label": [4, -100, 1, -100, 3.5, -100, -100, -100, 0]}), "rated").rows
    assert isinstance(row, Rated)
    assert (row.response, row.attributes) == ("Me.", {"quality": 4, "humor": 1, "helpfulness": 3.5, "verbosity": 0})
    for label, wrong in (([1, 2], "a list of 9 numbers"), ([-100] * 9, "at least one rating that is not -100")):
        with pytest.raises(DataError, match=wrong):
            read(write(tmp_path, {"text": text, "label": label}), "rated")


def test_steerlm2s_groups(tmp_path: Path) -> None:
    answers = [{"from": "Assistant", "value": v, "log(P(a|x,y))": -1.5, "log(P(y|x))": -9, "log(Q(y|a,x))": -8} for v in ("a", "b")]
    row = {"system": "Brief.", "prompt_turns": [{"from": "User", "value": "Who?"}], "label": "quality:4", "responses": answers}
    (group,) = read(write(tmp_path, row), "group").rows
    assert isinstance(group, Group)
    assert (group.answers, group.attribute_logprobs, group.base_logprobs) == (("a", "b"), (-1.5, -1.5), (-9, -9))
    assert group.prompt[-1].ratings == {"quality": 4}
    with pytest.raises(DataError, match="two responses or more"):
        read(write(tmp_path, {**row, "responses": answers[:1]}), "group")


def test_every_answer_of_any_format_with_its_columns(tmp_path: Path) -> None:
    pair = {"prompt": "Who?", "chosen": "Me.", "rejected": "No.", "id": 7, "requested": {"humor": 1}}
    rows = read(write(tmp_path, pair), "answered").rows
    assert [each.messages[-1].content for each in rows if isinstance(each, Conversation)] == ["Me.", "No."]
    assert all(isinstance(each, Conversation) and each.columns == {"id": 7, "requested": {"humor": 1}} for each in rows)
