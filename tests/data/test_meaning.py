"""What changes a row's meaning is read, or refused by name: never left out without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.rows import ANSWER, USER, Row, full, said, turn, write
from workbench.data.readers import Changes, DataError, Kind, read
from workbench.data.rows import Conversation

ASKED: dict[str, tuple[Row, str]] = {
    "a context": (
        {"question": "q?", "context": "C", "answer": "a"},
        "data.columns={instruction: question} puts it below the prompt, {context: null}",
    ),
    "an input": ({"prompt": "p", "input": "I"}, "data.columns={instruction: prompt}"),
    "images": ({"prompt": "p", "images": ["x.png"]}, "'images', which changes what the row means and is not read (data.columns={images: null}"),
    "choices": ({"question": "q", "choices": ["a", "b"], "answer": "0"}, "'choices', which changes what the row means"),
    "options": ({"prompt": "q", "options": {"A": "x"}}, "'options', which changes what the row means"),
    "another instruction": ({"prompt": "p", "instruction": "i"}, "'instruction', which changes"),
    "a history of turns": ({"messages": [USER], "history": [["a", "b"]]}, "'history', which changes"),
    "a history that is none": ({"prompt": "p", "history": "h"}, "history: a list of [question, answer]"),
    "an input of verl's": ({"prompt": [USER], "reward_model": {"ground_truth": "2"}, "images": ["x"]}, "'images', which changes"),
}


def refused(source: str, kind: Kind, message: str, changes: Changes | None = None) -> None:
    with pytest.raises(DataError) as error:
        read(source, kind, changes=changes)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ASKED)
def test_a_prompt_is_asked_whole(tmp_path: Path, name: str) -> None:
    row, message = ASKED[name]
    refused(write(tmp_path, row), "prompt", message)


def test_a_prompt_with_its_history_and_what_is_empty(tmp_path: Path) -> None:
    source = write(tmp_path, {"prompt": "p", "history": [["a", "b"]], "images": [], "input": ""})
    assert [said(row) for row in read(source, "prompt").rows] == [["U a", "A b", "U p"]]
    source = write(tmp_path, {"question": "q?", "context": "C", "answer": "a"})
    assert [full(row) for row in read(source, "prompt", changes=Changes({"instruction": "question"})).rows] == [["U q?\n\nC", "answer=a"]]
    assert [full(row) for row in read(source, "prompt", changes=Changes({"context": None})).rows] == [["U q?", "answer=a"]]


def test_choices_beside_a_conversation(tmp_path: Path) -> None:
    refused(write(tmp_path, {"question": "q", "choices": ["a", "b"], "answer": "0"}), "conversation", "'choices', which changes")


@pytest.mark.parametrize("label", [False, 0, "rejected"])
def test_an_unwanted_answer_is_not_the_prompts_answer(tmp_path: Path, label: object) -> None:
    (row,) = read(write(tmp_path, {"prompt": "q", "completion": "BAD", "label": label}), "prompt").rows
    assert full(row) == ["U q", f"label={str(label).lower()}"]


def test_labels_and_ratings_stay_columns_of_a_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "response": "a", "label": True}, {"prompt": "q", "response": "b", "label": False, "ground_truth": "g"}]
    assert [full(row) for row in read(write(tmp_path, *rows), "prompt").rows] == [
        ["U q", "answer=a", "label=true"],
        ["U q", "answer=g", "ground_truth=g", "label=false"],
    ]
    (row,) = read(write(tmp_path, {"prompt": "q", "response": "a", "helpfulness": 3, "verbosity": None}), "prompt").rows
    assert full(row) == ["U q", "answer=a", "helpfulness=3"]
    changes = Changes({"response": "said", "politeness": "politeness", "system": "sys"})
    (row,) = read(write(tmp_path, {"prompt": "q", "said": "a", "humor": 1, "politeness": 2, "sys": "S"}), "prompt", changes=changes).rows
    assert full(row) == ["S S", "U q", "answer=a", "humor=1", "politeness=2"]


@pytest.mark.parametrize("key", ["system", "system_prompt", "system_message", "system_instruction", "System"])
def test_every_name_of_the_systems_turn(tmp_path: Path, key: str) -> None:
    assert [said(row) for row in read(write(tmp_path, {key: "S", "prompt": "p", "completion": "a"}), "conversation").rows] == [["S S", "U p", "A a"]]


def test_two_system_columns_say_the_same(tmp_path: Path) -> None:
    row = {"system": "S", "system_prompt": "T", "prompt": "p", "completion": "a"}
    refused(write(tmp_path, row), "conversation", "'system' and 'system_prompt', which differ")
    assert read(write(tmp_path, {**row, "system_prompt": "S"}), "conversation").notes == []


@pytest.mark.parametrize("key", ["loss", "trainable", "train", "weight"])
def test_a_turn_that_is_not_to_be_learnt(tmp_path: Path, key: str) -> None:
    turns = [USER, turn("assistant", "x", **{key: False}), turn("user", "q", **{key: False}), turn("assistant", "y", **{key: True})]
    found = read(write(tmp_path, {"messages": turns}), "conversation")
    (row,) = found.rows
    assert isinstance(row, Conversation)
    assert said(row) == ["U p", "[A] x", "U q", "A y"]
    assert found.notes == []


BESIDE: dict[str, tuple[str, object]] = {
    "a question": ("query", "What is 2+2?"),
    "an input of another case": ("Input", "What is 2+2?"),
    "a task of several words": ("task", "Add 2 and 2"),
    "turns": ("trajectory", [USER, ANSWER, USER]),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_pair_whose_prompt_stands_in_another_column(tmp_path: Path, name: str) -> None:
    """It is not taken for one whose texts begin with the prompt; the mapping that it names reads it."""
    key, value = BESIDE[name]
    source = write(tmp_path, {key: value, "chosen": "Sure! 4", "rejected": "Sure! 5"})
    refused(source, "preference", f"data.columns={{prompt: {key}}} reads it as the prompt, {{{key}: null}} leaves it out")
    (row,) = read(source, "preference", changes=Changes({"prompt": key})).rows
    assert row.answers == ("Sure! 4", "Sure! 5")


def test_the_name_of_a_data_set_is_no_prompt(tmp_path: Path) -> None:
    assert read(write(tmp_path, {"source": "web", "chosen": "Sure! 4", "rejected": "Sure! 5"}), "preference").format == "implicit"


def test_a_key_twice(tmp_path: Path) -> None:
    """In lines and in arrays, at any depth: that row alone is malformed."""
    good, twice = '{"prompt": "p", "x": {"a": 1}}', '{"prompt": "p", "x": {"a": 1, "a": 2}}'
    for name, text in {"a.jsonl": f"{good}\n{twice}\n{good}\n", "a.json": f"[{good}, {twice}, {good}]"}.items():
        (tmp_path / name).write_text(text)
        found = read(str(tmp_path / name), "prompt", on_bad_row="skip")
        assert len(found.rows) == 2
        assert str(found.bad[0]) == f"{tmp_path / name}:2: expected JSON objects that have each key once; found the key 'a' twice"


def test_notes_of_what_is_likely_not_meant(tmp_path: Path) -> None:
    source = write(tmp_path, {"prompt": "id-7", "question": "p", "completion": "a"}, {"question": "q", "completion": "a"})
    found = read(source, "conversation", changes=Changes({"prompt": "question"}))
    assert [said(row) for row in found.rows] == [["U p", "A a"], ["U q", "A a"]]
    assert found.notes == [
        f"{source}: columns of the file that data.columns replaces, which are not read: prompt, whose place question takes (in 1 of 2 rows)"
    ]
    pair = {"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 2}
    source = write(tmp_path, pair, {**pair, "score_chosen": 3})
    for kind in ("preference", "conversation"):
        assert read(source, kind).notes == [f"{source}: 1 of 2 rows have a rejected answer whose own score is higher than the chosen one's"]
    source = write(tmp_path, {"text": "<|im_start|>x"})
    (note,) = read(source, "conversation").notes
    assert "1 raw text with <|im_start|>" in note
    assert "learnt as a token where the tokenizer has it as one, else as text; the first" in note


def test_turns_as_text_and_with_keys_of_both_forms(tmp_path: Path) -> None:
    for row in (
        {"messages": json.dumps([USER, ANSWER])},
        {"conversations": json.dumps([USER, ANSWER])},
        {"conversations": [{"role": "user", "value": "p"}, {"role": "assistant", "value": "a"}]},
        {"conversations": [{"from": "human", "content": "p"}, {"from": "gpt", "content": "a"}]},
    ):
        assert [said(each) for each in read(write(tmp_path, row), "conversation").rows] == [["U p", "A a"]]
    refused(write(tmp_path, {"messages": "[{"}), "conversation", "messages: a string or a list of messages; found str '[{'")


def test_files_of_another_shape(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"prompt": "p"}]}, indent=1))
    refused(str(tmp_path / "a.json"), "prompt", "is an object with a list in its key 'data'; write that list alone (`jq .data`)")
    (tmp_path / "b.jsonl").write_text('{"prompt": "p"}\n', encoding="utf-16")
    refused(str(tmp_path / "b.jsonl"), "prompt", "is UTF-16 text; `iconv -f UTF-16 -t UTF-8`")


NEAREST: dict[str, tuple[Kind, Row, str, Changes | None]] = {
    "numbered answers in their order": (
        "preference",
        {"prompt": "p", "response2": "b", "response1": "a", "better_response_id": 0},
        "the nearest is saferlhf with better_response_id, prompt, response_0, response_1: "
        "data.columns={response_0: response1, response_1: response2} reads these",
        Changes({"response_0": "response1", "response_1": "response2"}),
    ),
    "an arena": (
        "preference",
        {"prompt": "p", "response_a": "a", "response_b": "b", "winner_model_a": 1, "winner_model_b": 0},
        "name the column for better_response_id as in data.columns={better_response_id: …, response_0: response_a, response_1: response_b}",
        None,
    ),
    "Stack Exchange's pairs": (
        "preference",
        {"question": "p", "response_j": "a", "response_k": "b", "qid": 1},
        "data.columns={chosen: response_j, rejected: response_k} reads these",
        Changes({"chosen": "response_j", "rejected": "response_k"}),
    ),
    "DeepMath": (
        "conversation",
        {"question": "p", "final_answer": "a", "difficulty": 3.0, "r1_solution_1": "x"},
        "data.columns={answer: final_answer} reads these",
        Changes({"answer": "final_answer"}),
    ),
    "ARC": (
        "conversation",
        {"question": "p", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"},
        "data.columns={answer: answerKey} does not read these (expected columns that format question_answer reads; found 'choices'",
        None,
    ),
    "SQuAD": (
        "conversation",
        {"title": "t", "context": "c", "question": "p", "answers": {"text": ["a"]}},
        "the nearest is question_answer with answer, question: data.columns={answer: answers} does not read these",
        None,
    ),
    "ratings to imitate": (
        "conversation",
        {"prompt": "p", "response": "a", "helpfulness": 3},
        "data.format=prompt_completion reads these; for all else data.map; found a row of format rated, which gives: rated, prompt (keys [",
        None,
    ),
    "a label of another name": (
        "unpaired",
        {"prompt": "p", "completion": "a", "is_good": True},
        "data.columns={label: is_good} reads these",
        Changes({"label": "is_good"}),
    ),
}


@pytest.mark.parametrize("name", NEAREST)
def test_the_nearest_format_that_gives_the_kind(tmp_path: Path, name: str) -> None:
    """Where another format fits, which does not give it: what would read the rows, tried on the first of them."""
    kind, row, message, changes = NEAREST[name]
    source = write(tmp_path, row)
    refused(source, kind, message)
    if changes:
        (read_row,) = read(source, kind, changes=changes).rows
        assert said(read_row)[0] == "U p"
        assert said(read_row)[1].removeprefix("A ") == "a"
