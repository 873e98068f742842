"""Readers: every format, and every way a file can be broken."""

from __future__ import annotations

import gzip
import io
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests import models
from tests.data.rows import write
from tests.data.sums import ANSWER, CHAT, GOOD, USER
from workbench.data import decoding
from workbench.data.check import check, render
from workbench.data.dataset import load
from workbench.data.limits import Limits
from workbench.data.packing import Row, pack
from workbench.data.readers import DataError, Kind, read
from workbench.data.rows import Conversation, Message, Preference, PromptOnly, Rated, Unpaired
from workbench.settings import Data

TOKENIZER = models.tokenizer()
SHARED = Path(__file__).parents[3] / "shared" / "data"
HH, GSM8K = SHARED / "hh-rlhf" / "helpful-base.test.jsonl.gz", SHARED / "gsm8k" / "test.jsonl.gz"
PREFERENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "strings": ("preference", GOOD),
    "messages": ("preference", {"prompt": [USER], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "5"}]}),
    "prompt repeated": ("preference", {"chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "5"}]}),
    "nemo": ("nemo", {"prompt": "2 + 2?", "chosen_response": "4", "rejected_response": "5"}),
    "hh": ("hh", {"chosen": "\n\nHuman: 2 + 2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2 + 2?\n\nAssistant: 5"}),
}
CONVERSATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "input_output": ("input_output", {"input": "2 + 2?", "output": "4"}),
    "messages": ("messages", {"messages": [USER, ANSWER]}),
    "sharegpt": ("sharegpt", {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]}),
    "nemo chat": (
        "sharegpt",
        {"system": "", "mask": "User", "conversations": [{"from": "User", "value": "2 + 2?"}, {"from": "Assistant", "value": "4", "label": None}]},
    ),
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_preference_formats(tmp_path: Path, name: str) -> None:
    form, row = PREFERENCES[name]
    found = read(write(tmp_path, row), "preference")
    assert found.format == form
    (pair,) = found.rows
    assert isinstance(pair, Preference)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((Message("user", "2 + 2?"),), "4", "5")
    assert pair.where.endswith("rows.jsonl:1")


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversation_formats(tmp_path: Path, name: str) -> None:
    form, row = CONVERSATIONS[name]
    found = read(write(tmp_path, row), "conversation")
    assert found.format == form
    (talk,) = found.rows
    assert isinstance(talk, Conversation)
    assert [(m.role, m.content) for m in talk.messages] == [("user", "2 + 2?"), ("assistant", "4")]
    assert talk.messages[-1].learn


RATED: dict[str, dict[str, Any]] = {
    "HelpSteer": {"prompt": "2 + 2?", "response": "4", "helpfulness": 3, "toxicity": None, "verbosity": 0.5},
    "mapping": {"id": "x1", "prompt": [USER], "response": "4", "attributes": {"helpfulness": 3, "verbosity": 0.5}},
    "label string": {"prompt": "2 + 2?", "response": [ANSWER], "attributes": "helpfulness:3, verbosity:0.5"},
    "labelled chat": {
        "system": "",
        "mask": "User",
        "conversations": [
            {"from": "User", "value": "2 + 2?", "label": None},
            {"from": "Assistant", "value": "4", "label": "helpfulness:3,verbosity:0.5"},
        ],
    },
}


@pytest.mark.parametrize("name", RATED)
def test_rated_formats(tmp_path: Path, name: str) -> None:
    (row,) = read(write(tmp_path, RATED[name]), "rated").rows
    assert isinstance(row, Rated)
    assert (row.prompt, row.response, row.attributes) == ((Message("user", "2 + 2?"),), "4", {"helpfulness": 3.0, "verbosity": 0.5})


@pytest.mark.parametrize("answer", ["response", "completion"])
@pytest.mark.parametrize(
    ("key", "value", "desirable"), [("label", True, True), ("label", False, False), ("preference", "chosen", True), ("preference", "rejected", False)]
)
def test_unpaired_formats(tmp_path: Path, answer: str, key: str, value: Any, desirable: bool) -> None:
    found = read(write(tmp_path, {"prompt": "2 + 2?", answer: "4", key: value}), "unpaired")
    assert found.format == "unpaired"
    (row,) = found.rows
    assert isinstance(row, Unpaired)
    assert (row.prompt, row.response, row.desirable) == ((Message("user", "2 + 2?"),), "4", desirable)


@pytest.mark.parametrize("name", PREFERENCES)
def test_a_pair_is_two_unpaired_answers(tmp_path: Path, name: str) -> None:
    """`limit` counts the source's rows, not what becomes of them."""
    rows = read(write(tmp_path, PREFERENCES[name][1], PREFERENCES[name][1]), "unpaired", limit=1).rows
    assert [(row.response, row.desirable) for row in rows if isinstance(row, Unpaired)] == [("4", True), ("5", False)]
    assert [row.where for row in rows] == [f"{tmp_path / 'rows.jsonl'}:1"] * 2


PROMPTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "alone": ({"prompt": "2 + 2?"}, {}),
    "messages": ({"prompt": [USER], "pattern": r"\b4\b"}, {"pattern": r"\b4\b"}),
    "NeMo-Aligner": ({"text": "2 + 2?"}, {}),
    "GSM8K": ({"question": "2 + 2?", "answer": "2 + 2 = 4\n#### 4"}, {"answer": "2 + 2 = 4\n#### 4"}),
    "other columns": (
        {"prompt": "2 + 2?", "question": "é", "n": 4, "known": True, "tags": ["é", 1.5], "none": None},
        {"question": "é", "n": "4", "known": "true", "tags": '["é", 1.5]'},
    ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(tmp_path: Path, name: str) -> None:
    """What is beside the prompt is kept as text; what is null is not there."""
    row, columns = PROMPTS[name]
    found = read(write(tmp_path, row), "prompt")
    assert found.format == "prompts"
    (prompt,) = found.rows
    assert isinstance(prompt, PromptOnly)
    assert (prompt.prompt, prompt.columns, prompt.answers) == ((Message("user", "2 + 2?"),), columns, ())
    assert prompt.where.endswith("rows.jsonl:1")


SERVING = {
    **{f"preference: {name}": row for name, (_, row) in PREFERENCES.items()},
    **{f"conversation: {name}": row for name, (_, row) in CONVERSATIONS.items()},
    **{f"rated: {name}": row for name, row in RATED.items()},
    "unpaired": {"prompt": "2 + 2?", "completion": "4", "label": True},
}

KEPT = {
    "rated: HelpSteer": {"helpfulness": "3", "verbosity": "0.5"},
    "rated: mapping": {"id": "x1", "attributes": '{"helpfulness": 3, "verbosity": 0.5}'},
    "rated: label string": {"attributes": "helpfulness:3, verbosity:0.5"},
    "unpaired": {"label": "true"},
}


@pytest.mark.parametrize("name", SERVING)
def test_every_row_serves_as_a_prompt(tmp_path: Path, name: str) -> None:
    """With its answer, of a pair the chosen one, as a column, beside its ratings or label and what its format does not read."""
    (row,) = read(write(tmp_path, SERVING[name]), "prompt").rows
    assert isinstance(row, PromptOnly)
    kept = KEPT.get(name, {})
    assert ([(m.role, m.content) for m in row.prompt], row.columns) == ([("user", "2 + 2?")], {"answer": "4", **kept})


@pytest.mark.parametrize("extra", ["question", "text", "prompts"])
def test_a_pair_with_further_columns_is_a_pair(tmp_path: Path, extra: str) -> None:
    row = {**PREFERENCES["hh"][1], extra: "x"}
    assert read(write(tmp_path, row), "preference").format == "hh"


def test_dates_of_a_parquet_file_as_text(tmp_path: Path) -> None:
    from datetime import date

    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([{"question": "When?", "day": date(2024, 2, 29), "raw": b"\xff"}]), path)
    (row,) = read(str(path), "prompt").rows
    assert isinstance(row, PromptOnly)
    assert row.columns == {"day": '"2024-02-29"', "raw": "\"b'\\\\xff'\""}


def test_school_mathematics() -> None:
    if not GSM8K.is_file():
        pytest.skip(f"GSM8K is not at {GSM8K}")
    rows = read(str(GSM8K), "prompt").rows
    assert len(rows) == 1319
    assert all(isinstance(row, PromptOnly) and "#### " in row.columns["answer"] for row in rows)


def test_prompts_are_loaded_and_packed(tmp_path: Path) -> None:
    """The prompt up to where the answer begins, and nothing to learn. The longest of 1 to 40 words is cut from the left, or left out."""
    questions = ["a" + " a" * n for n in range(40)]
    path = write(tmp_path, *({"question": question, "answer": f"#### {n}"} for n, question in enumerate(questions)))
    found = load(Data(train=path, validation_fraction=0.2), "prompt", CHAT)
    rows = found.train + found.validation
    assert [list(row.prefix) for row in found.validation] == found.validation_prompts
    assert (len(rows), found.report.answer_tokens, found.report.prompt_tokens) == (40, 0, sum(row.num_tokens for row in rows))
    assert {TOKENIZER.decode(row.prefix): row.columns["answer"] for row in rows} == {
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n": f"#### {n}" for n, question in enumerate(questions)
    }
    longest = max(row.num_tokens for row in rows)
    assert load(Data(train=path, max_length=longest - 1), "prompt", CHAT).report.dropped == 1
    cut = load(Data(train=path, max_length=longest - 1, overlength="truncate_left"), "prompt", CHAT)
    assert (cut.report.truncated, cut.report.length["max"]) == (1, longest - 1)
    for part in (rows[:3], [Row(row.prefix) for row in rows[:3]]):
        packed = pack(part)
        assert (len(packed.source_N), len(packed.target_N), packed.num_sequences, len(packed.tokens_T)) == (0, 0, 3, sum(r.num_tokens for r in part))


def test_prompts_are_checked(tmp_path: Path) -> None:
    """Two rows that ask the same and expect another answer are no duplicates."""
    rows = [{"question": "2 + 2?", "answer": "4"}, {"question": "2 + 2?", "answer": "5"}, {"question": "2 + 2?", "answer": "4"}]
    report = check(write(tmp_path, *rows), "prompt", CHAT)
    assert (report.format, report.rows, report.duplicates, report.repeated_prompts, report.answer_tokens) == ("prompts", 3, 1, 2, 0)
    pieces = report.samples[0].pieces
    assert "".join(piece.text for piece in pieces) == "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    assert [(piece.role, piece.learnt) for piece in pieces] == [("", False), ("user", False), ("", False)]
    assert report.samples[0].note == "answer: 4"
    render(report, Console(file=io.StringIO()))


REFUSED: dict[str, tuple[Kind, dict[str, Any], str, str]] = {
    "a word as rating": ("rated", {"prompt": "a", "response": "b", "helpfulness": "high"}, "helpfulness: a finite number, or null", "str 'high'"),
    "true as rating": ("rated", {"prompt": "a", "response": "b", "attributes": {"humor": True}}, "attributes.humor: a finite number", "bool True"),
    "not finite": ("rated", {"prompt": "a", "response": "b", "humor": float("inf")}, "humor: a finite number", "float inf"),
    "nothing rated": ("rated", {"prompt": "a", "response": "b", "humor": None}, "at least one rating beside prompt", "keys ['prompt', 'response']"),
    "empty mapping": ("rated", {"prompt": "a", "response": "b", "attributes": {}}, "at least one rating in attributes", "[]"),
    "torn label": ("rated", {"prompt": "a", "response": "b", "attributes": "quality:4,toxicity"}, '"quality:4,toxicity:0"', "quality:4,toxicity"),
    "label twice": ("rated", {"prompt": "a", "response": "b", "attributes": "quality:4,quality:0"}, "names each once", "quality:4,quality:0"),
    "chat without label": ("rated", CONVERSATIONS["sharegpt"][1], "an assistant's turn with ratings", "2 turns without"),
    "a pair as ratings": ("rated", GOOD, "a rated row", "a row of format preference"),
    "a word as label": (
        "unpaired",
        {"prompt": "a", "response": "b", "label": "good"},
        'label: true, false, 1, 0, "chosen" or "rejected"',
        "str 'good'",
    ),
    "a number as label": ("unpaired", {"prompt": "a", "completion": "b", "label": 2}, "label: true, false", "int 2"),
    "empty completion": ("unpaired", {"prompt": "a", "completion": " ", "label": True}, "completion: text", "white space only"),
    "ratings as unpaired": ("unpaired", RATED["HelpSteer"], "an unpaired row", "a row of format rated"),
    "a label as pair": ("preference", {"prompt": "a", "response": "b", "label": True}, "a preference row", "a row of format unpaired"),
    "an answer without prompt": ("prompt", {"messages": [ANSWER]}, "a conversation with a user's turn", "1 turns without one"),
    "an answer last": ("prompt", {"prompt": [USER, ANSWER]}, "a prompt that ends with a user's turn", "one that ends with assistant"),
    "an answer before the answer": ("prompt", {"messages": [USER, ANSWER, ANSWER]}, "ends with a user's turn", "one that ends with assistant"),
    "an empty question": ("prompt", {"question": " ", "answer": "4"}, "question: text", "white space only"),
    "a number as text": ("prompt", {"text": 3}, "text: a string or a list of messages", "int 3"),
    "half a pair": ("prompt", {"prompt": "a", "chosen": "b"}, "the nearest is preference with chosen, prompt, rejected", "keys ['chosen', 'prompt']"),
    "a prompt to imitate": ("conversation", PROMPTS["messages"][0], "a conversation, or a preference row", "a row of format prompts"),
    "ratings to imitate": ("conversation", RATED["HelpSteer"], "a conversation, or a preference row", "a row of format rated"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_rated_and_unpaired_rows(tmp_path: Path, name: str) -> None:
    kind, row, expected, found = REFUSED[name]
    with pytest.raises(DataError) as error:
        read(write(tmp_path, row), kind)
    assert re.search(rf"rows\.jsonl:1: expected .*{re.escape(expected)}.*; found .*{re.escape(found)}", str(error.value))


def test_rewards_and_a_chosen_answer_as_conversation(tmp_path: Path) -> None:
    source = write(tmp_path, {"prompt": "a", "chosen_response": "b", "rejected_response": "c", "chosen_reward": 2, "rejected_reward": 0.5})
    (pair,) = read(source, "preference").rows
    assert isinstance(pair, Preference)
    assert (pair.chosen_reward, pair.rejected_reward) == (2.0, 0.5)
    (talk,) = read(source, "conversation").rows
    assert isinstance(talk, Conversation)
    assert [m.content for m in talk.messages] == ["a", "b"]


def test_hh_with_many_turns(tmp_path: Path) -> None:
    """Speakers who go on after a blank line are one turn; the prompt is all but the last answer."""
    start = "\n\nHuman: a\n\nHuman: b\n\nAssistant: c\n\nHuman: d"
    (pair,) = read(write(tmp_path, {"chosen": f"{start}\n\nAssistant: x", "rejected": f"{start}\n\nAssistant: y"}), "preference").rows
    assert isinstance(pair, Preference)
    assert [m.content for m in pair.prompt] == ["a\n\nb", "c", "d"]


BROKEN: dict[str, tuple[bytes, str, str]] = {
    "bad JSON": (b'{"prompt": ', "JSON", "Expecting value"),
    "not an object": (b"[1, 2]", "a JSON object", "list [1, 2]"),
    "missing key": (b'{"prompt": "a", "chosen": "b"}', "the key 'rejected'", "keys ['chosen', 'prompt']"),
    "wrong type": (b'{"prompt": "a", "chosen": "b", "rejected": 3}', "rejected: a string or a list of messages", "int 3"),
    "empty answer": (b'{"prompt": "a", "chosen": "", "rejected": "c"}', "chosen: text", "an empty string"),
    "white space": (b'{"prompt": "a", "chosen": "  ", "rejected": "c"}', "chosen: text", "white space only"),
    "NUL": (b'{"prompt": "a", "chosen": "b\\u0000", "rejected": "c"}', "without NUL", "character 1"),
    "half a surrogate": (b'{"prompt": "a", "chosen": "\\ud800", "rejected": "c"}', "valid Unicode", "surrogate"),
    "broken UTF-8": (b'{"prompt": "\xff"}', "UTF-8 text", "byte 0xff at 12"),
    "nested": (b"[" * 200_000, "JSON", "nested too deeply"),
    "long line": (b'{"prompt": "' + b"a" * (50 << 20) + b'"}', "at most 8 MiB", "50.0 MiB"),
    "unknown role": (b'{"prompt": [{"role": "cat", "content": "a"}], "chosen": "b", "rejected": "c"}', "one of ai, assistant", "cat"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rows(tmp_path: Path, name: str) -> None:
    """A bad row between two good ones: refused with file:line, expected and found; or left out, the good ones kept."""
    line, expected, found = BROKEN[name]
    good = json.dumps(GOOD).encode()
    path = tmp_path / "rows.jsonl"
    path.write_bytes(good + b"\n" + line + b"\n" + good + b"\n")
    with pytest.raises(DataError) as error:
        read(str(path), "preference")
    assert f"{path}:2: expected" in str(error.value)
    assert "data.on_bad_row=skip" in str(error.value)
    rows = read(str(path), "preference", on_bad_row="skip")
    assert [row.where for row in rows.rows] == [f"{path}:1", f"{path}:3"]
    (bad,) = rows.bad
    assert expected in bad.expected
    assert found in bad.found


def test_files_as_windows_and_editors_write_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n" + json.dumps(GOOD).encode())
    assert [row.where for row in read(str(path), "preference").rows] == [f"{path}:1", f"{path}:3"]


def test_truncated_gzip(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress("".join(f"{json.dumps({**GOOD, 'prompt': str(i)})}\n" for i in range(1000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="a whole gzip file"):
        read(str(path), "preference")
    assert 0 < len(read(str(path), "preference", on_bad_row="skip").rows) < 1000


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([GOOD, GOOD]), path)
    assert len(read(str(path), "preference").rows) == 2
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="a whole parquet file"):
        read(str(path), "preference")


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path, GOOD, name="pairs.jsonl")
    with pytest.raises(DataError, match=r"did you mean .*pairs\.jsonl"):
        read(source.replace("pairs", "pears"), "preference")
    with pytest.raises(DataError, match=r"is a directory; name a file in it: pairs\.jsonl"):
        read(str(tmp_path), "preference")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no rows"):
        read(str(tmp_path / "empty.jsonl"), "preference")
    with pytest.raises(DataError, match="neither a file nor a Hugging Face dataset"):
        read("nobody/nothing", "preference")


def test_a_hub_dataset(tmp_path: Path) -> None:
    """`datasets` loads a local folder as it loads an id."""
    write(tmp_path, GOOD, GOOD, name="train.jsonl")
    assert list(decoding.hub_rows(str(tmp_path), None, "train", Limits())) == [(f"{tmp_path}:train:{i}", GOOD) for i in (1, 2)]


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "prompt",
                        "question",
                        "text",
                        "chosen",
                        "rejected",
                        "messages",
                        "role",
                        "content",
                        "conversations",
                        "input",
                        "output",
                        "response",
                        "attributes",
                        "label",
                    ]
                ),
                x,
            )
        ),
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_data_errors(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    for kind in get_args(Kind):
        try:
            rows = read(str(path), kind, on_bad_row="skip")
        except DataError:
            continue
        assert rows.rows


def test_human_preferences() -> None:
    if not HH.is_file():
        pytest.skip(f"the HH-RLHF rows are not at {HH}")
    rows = read(str(HH), "preference", on_bad_row="skip")
    assert (rows.format, len(rows.rows), len(rows.bad)) == ("hh", 2350, 4)
    assert all("text" in bad.expected for bad in rows.bad)
