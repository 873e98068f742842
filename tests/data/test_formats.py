"""Every format of rows: one file each, read with its right value, and what is not read is named or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from tests.data.rows import ANSWER, OTHER, READ, TREE, USER, Row, full, reply, said, turn, write
from tests.extend import extended, python
from workbench.data import formats
from workbench.data.readers import Changes, DataError, Kind, read
from workbench.data.rows import Conversation, Malformed, Message, Rated
from workbench.settings import Data

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "data.md").read_text()


@pytest.mark.parametrize("name", READ)
def test_a_row_is_read(tmp_path: Path, name: str) -> None:
    kind, form, row, right = READ[name]
    rows = read(write(tmp_path, row), kind)
    assert (rows.format, [full(each) for each in rows.rows]) == (form, [right])


def test_what_a_template_may_take_is_kept(tmp_path: Path) -> None:
    """Tools, calls, results and reasoning (s07, s08, s28), for the template to take or to refuse."""
    calls = [{"function": {"name": "f", "arguments": "{}"}}]
    turns = [USER, turn("assistant", None, tool_calls=calls), turn("tool", "3", tool_call_id="c"), turn("assistant", "b", reasoning_content="r")]
    for tools in ([{"name": "f"}], '[{"name": "f"}]'):
        (row,) = read(write(tmp_path, {"tools": tools, "messages": turns}), "conversation").rows
        assert isinstance(row, Conversation)
        assert row.tools == ({"name": "f"},)
        assert row.messages[1:] == (
            Message("assistant", "", extra={"tool_calls": calls}),
            Message("tool", "3", extra={"tool_call_id": "c"}),
            Message("assistant", "b", extra={"reasoning_content": "r"}),
        )
    call = {"from": "function_call", "value": '{"name": "f", "arguments": {}}'}
    shared = [{"from": "human", "value": "a"}, call, {"from": "observation", "value": "3"}, {"from": "gpt", "value": "b"}]
    (row,) = read(write(tmp_path, {"conversations": shared}), "conversation").rows
    assert isinstance(row, Conversation)
    assert row.messages[1].extra == {"tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}


def test_paths_and_pairs_of_a_tree(tmp_path: Path) -> None:
    """Best-ranked replies first; each reply is learnt once; a reply without an answer to it ends its path."""
    deep = reply("more?", reply("sure", rank=0), role="prompter")
    tree = {"prompt": {**TREE, "replies": [reply("worse", rank=1), reply("best", deep, rank=0), reply("gone", rank=2, deleted=True)]}}
    source = write(tmp_path, tree)
    assert [said(row) for row in read(source, "conversation").rows] == [["U hi", "A best", "U more?", "A sure"], ["U hi", "A worse"]]
    assert [said(row) for row in read(source, "preference").rows] == [["U hi", "best", "worse"]]
    assert [full(row) for row in read(source, "prompt").rows] == [["U hi", "answer=best"], ["U hi", "A best", "U more?", "answer=sure"]]
    twice = {"prompt": {**TREE, "replies": [reply("a", reply("x", reply("b"), role="prompter"), reply("y", reply("c"), role="prompter"))]}}
    assert [said(row) for row in read(write(tmp_path, twice), "conversation").rows] == [
        ["U hi", "A a", "U x", "A b"],
        ["U hi", "[A] a", "U y", "A c"],
    ]


def test_every_pair_of_ranked_answers(tmp_path: Path) -> None:
    """Answers of one rank make no pair."""
    source = write(tmp_path, {"prompt": "p", "answers": [{"answer": x, "rank": r} for x, r in (("a", 1), ("b", 2), ("c", 2))]})
    rows = read(source, "preference", changes=Changes(pairs="all")).rows
    assert [said(row)[1:] for row in rows] == [["a", "b"], ["a", "c"]]


def test_the_safer_answer(tmp_path: Path) -> None:
    source = write(tmp_path, READ["s18 SafeRLHF"][2])
    rows = read(source, "preference", changes=Changes({"better_response_id": "safer_response_id"})).rows
    assert [said(row) for row in rows] == [["U p", "a", "b"]]


REFUSED: dict[str, tuple[Kind, Row, str]] = {
    "label: false": ("conversation", {"prompt": "p", "completion": "a", "label": False}, "a row of format unpaired, which gives: unpaired, prompt"),
    "a weight of rows": ("conversation", {"prompt": "p", "completion": "a", "weight": 0.5}, "'weight', which changes what the row means"),
    "two answers": (
        "conversation",
        {"question": "q", "answer": "a", "response": "b"},
        "'answer' and 'response', which differ (data.columns={answer: null}",
    ),
    "two answers to rate": ("answered", {"prompt": "p", "completion": "a", "response": "b"}, "one answer; found 'completion' and 'response'"),
    "images": ("conversation", {"messages": [USER, ANSWER], "images": ["x.png"]}, "'images', which changes what the row means"),
    "a context": ("conversation", {"question": "q", "context": "c", "answer": "a"}, "data.columns={instruction: question} puts it below"),
    "another instruction": ("conversation", {"prompt": "p", "instruction": "i", "completion": "a"}, "'instruction', which changes"),
    "system beside raw text": ("conversation", {"text": "t", "system": "s"}, "raw text alone; found 'system' beside it"),
    "two system turns": ("conversation", {"system": "a", "messages": [turn("system", "b"), USER, ANSWER]}, "another one in the column 'system'"),
    "a part of an image": ("conversation", {"messages": [turn("user", [{"type": "image_url"}]), ANSWER]}, "found str 'image_url'"),
    "a call in an answer": (
        "preference",
        {"prompt": "p", "chosen": [turn("assistant", "a", tool_calls=[{}])], "rejected": "b"},
        "one with tool_calls",
    ),
    "reasoning in an answer": (
        "preference",
        {"prompt": "p", "chosen": [turn("assistant", "a", reasoning_content="r")], "rejected": "b"},
        "text alone",
    ),
    "an answer of weight 0": ("preference", {"prompt": "p", "chosen": [turn("assistant", "a", weight=0)], "rejected": "b"}, "one of weight 0"),
    "a fraction of a turn": ("conversation", {"messages": [USER, turn("assistant", "a", weight=0.5)]}, "weight: 0 or 1"),
    "OpenAI's old calls": ("conversation", {"messages": [USER, turn("assistant", "a", function_call={"name": "f"})]}, "without function_call"),
    "a turn alone": (
        "rated",
        {"conversations": [{"from": "Assistant", "value": "a", "label": "quality:3"}]},
        "a prompt before an answer that is rated; found 1 turns",
    ),
    "nothing to ask": ("conversation", {"messages": [ANSWER]}, "a conversation with a user's turn"),
    "nothing in common": ("preference", {"chosen": "a b", "rejected": "c d"}, "begin with the same words"),
    "other prompts": ("preference", {"prompt": "x", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, "after the prompt or alone"),
    "a half tree": ("preference", {"prompt": {**TREE, "replies": [reply("a")]}}, "a tree with ranked replies"),
    "a numeric id": ("rated", {"prompt": "p", "response": "a", "id": 7}, "data.columns={id: id} makes id one"),
    "a huge reward": ("preference", {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_reward": 10**400}, "found int of 1,329 bits"),
    "half a pair of surrogates": ("prompt", {"prompt": "p", "answer": "x \ud83d"}, "answer: valid Unicode"),
    "half a pair, within": ("prompt", {"prompt": "p", "answer": {"x": ["\ud83d"]}}, "answer: valid Unicode"),
    "half a pair as a name": ("prompt", {"prompt": "p", "\ud83d": "x"}, "a column's name: valid Unicode"),
    "unknown columns": (
        "preference",
        {"query": "p", "good": "a", "bad": "b"},
        "data.columns={chosen: good, prompt: query, rejected: bad} reads these",
    ),
    "unknown and lacking": (
        "preference",
        {"query": "p", "better": "a", "x": "b"},
        "name the column for rejected as in data.columns={chosen: better, ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """With its line; and the row before it is read."""
    kind, row, message = REFUSED[name]
    with pytest.raises(DataError) as error:
        read(write(tmp_path, row), kind)
    assert "rows.jsonl:1: expected" in str(error.value)
    assert message in str(error.value)


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    """Columns, keys of turns, and markup of a template inside texts, with its first place."""
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "source": "web", "margin": 1},
        {"prompt": "q", "chosen": "<|im_start|>x", "rejected": "[INST] y", "source": "web", "margin": None},
    ]
    source = write(tmp_path, *rows)
    assert read(source, "preference").notes == [
        f"{source}: columns that format preference does not read: source, margin (in 1 of 2 rows)",
        f"{source}: 1 text with <|im_start|>, markup of a chat template, which is learnt as text; the first: {source}:2",
        f"{source}: 1 text with [INST], markup of a chat template, which is learnt as text; the first: {source}:2",
    ]
    source = write(tmp_path, {"messages": [turn("user", "p", id="1"), ANSWER]})
    assert read(source, "conversation").notes == [f"{source}: keys of turns that are not read: id"]
    assert not read(write(tmp_path, {"prompt": "p", "n": 1}), "prompt").notes


def test_columns_under_other_names(tmp_path: Path) -> None:
    source = write(tmp_path, {"meta": {"query": "p"}, "good": "a", "bad": "b", "label": False})
    changes = Changes({"prompt": "meta.query", "completion": "good", "label": None})
    assert [said(row) for row in read(source, "conversation", changes=changes).rows] == [["U p", "A a"]]
    rated = write(tmp_path, {"prompt": "p", "response": "a", "politeness": 2, "words": 9})
    (row,) = read(rated, "rated", changes=Changes({"politeness": "politeness"})).rows
    assert isinstance(row, Rated)
    assert row.attributes == {"politeness": 2.0}
    with pytest.raises(DataError, match=r"data\.columns\.prompt: there is no column 'qeury'; did you mean 'query'\?; there are: query"):
        read(write(tmp_path, {"query": "p"}), "prompt", changes=Changes({"prompt": "qeury"}))


MAP = """
def pairs(row):
    if row["skip"]:
        return None
    return [{"prompt": row["q"], "chosen": good, "rejected": row["bad"]} for good in row["good"]]

def number(row):
    return 3
"""


def test_a_function_of_the_users_makes_the_rows(tmp_path: Path) -> None:
    """None, one or several; what it raises is its row's, with the place."""
    (tmp_path / "maps.py").write_text(MAP)
    rows = [{"q": "p", "good": ["a", "x"], "bad": "b", "skip": False}, {"skip": True}, {"skip": False}]
    source = write(tmp_path, *rows)
    function = f"{tmp_path / 'maps.py'}:pairs"
    found = read(source, "preference", on_bad_row="skip", changes=Changes(map=function))
    assert [said(row) for row in found.rows] == [["U p", "a", "b"], ["U p", "x", "b"]]
    assert [str(bad) for bad in found.bad] == [f"{source}:3: expected a row that data.map={function} takes; found KeyError: 'good'"]
    with pytest.raises(DataError, match=r"expected a dict of columns, a list of them or None from data\.map=.*; found 3"):
        read(source, "preference", changes=Changes(map=f"{tmp_path / 'maps.py'}:number"))
    with pytest.raises(DataError, match=r"data\.map: .*has no function 'pears'; did you mean 'pairs'"):
        read(source, "preference", changes=Changes(map=f"{tmp_path / 'maps.py'}:pears"))


def test_rows_of_several_shapes_have_the_format_of_most(tmp_path: Path) -> None:
    """The first row alone does not decide, nor does one that lacks a value."""
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    found = read(write(tmp_path, {"text": "x"}, pair, {**pair, "messages": []}, pair), "preference", on_bad_row="skip")
    assert (found.format, len(found.rows), found.num_bad) == ("preference", 3, 1)
    rated = [{"prompt": "p", "response": "a", "quality": quality} for quality in (None, 2, 3)]
    found = read(write(tmp_path, *rated), "rated", on_bad_row="skip")
    assert (found.format, len(found.rows), found.num_bad) == ("rated", 2, 1)


def test_a_format_has_a_name_in_the_settings() -> None:
    assert {"auto", *formats.NAMES} == {*get_args(Data.model_fields["format"].annotation)} == {"auto", *formats.SCHEMAS}


def test_no_example_has_two_formats() -> None:
    """Of all rows here the format is told by more than the order of names."""
    for kind, form, row, _ in READ.values():
        asked = formats.Asked(kind, "")
        ahead = {name: formats.rank(name, row, asked) for name in formats.NAMES}
        best = max(ahead.values())
        assert [name for name, each in ahead.items() if each == best] == [form], row


EXAMPLES = re.findall(r"^\| `(\w+)` \| `(\{.*?\})` \| (\w+)", GUIDE, re.MULTILINE)


def test_the_guide_has_an_example_of_each_format() -> None:
    assert {name for name, _, _ in EXAMPLES} == set(formats.NAMES)


@pytest.mark.parametrize(("name", "example", "kind"), EXAMPLES)
def test_the_guides_examples_are_read(tmp_path: Path, name: str, example: str, kind: Kind) -> None:
    rows = read(write(tmp_path, json.loads(example.replace("\\|", "|"))), kind)
    assert (rows.format, rows.num_bad, rows.notes) == (name, 0, [])


FORMAT = '''"""Rows of a riddle."""

from workbench.data.formats._parts import Asked, Parsed
from workbench.data.formats._values import Raw, text
from workbench.data.rows import Conversation, Kind, Message

SCHEMA = '{"riddle", "solved"}'
GIVES: tuple[Kind, ...] = ("conversation",)
KEYS = (frozenset({"riddle", "solved"}),)
READS = frozenset({"riddle", "solved"})


def parse(row: Raw, asked: Asked) -> Parsed:
    return Conversation((Message("user", text(row, "riddle")), Message("assistant", text(row, "solved"))), asked.where)
'''


def test_a_format_costs_one_file(tmp_path: Path) -> None:
    folder = extended(tmp_path, {"workbench/data/formats/riddle.py": FORMAT})
    source = write(tmp_path, {"riddle": "r", "solved": "s"})
    code = (
        "from workbench.data.readers import read; from workbench.settings import Data; "
        f"print(read({source!r}, 'conversation').format, Data(train='x', format='riddle').format)"
    )
    done = python(folder, "-c", code)
    assert done.stdout.split() == ["riddle", "riddle"], done.stderr


def test_malformed_has_what_was_expected_and_what_was_found() -> None:
    with pytest.raises(Malformed) as error:
        formats.parse({"prompt": "p"}, "preference", formats.Asked("preference", ""))
    assert error.value.args == ("the key 'chosen'", "keys ['prompt']")
