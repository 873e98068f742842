"""Rewards: what each program gives, how a program is found, and what is said when that fails."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from math import exp
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.rewards import mathematics, programs, resolve
from workbench.rewards.example import concise
from workbench.rewards.programs import PROGRAMS
from workbench.rewards.shaping import Answer, shaped

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl.gz"

RESULTS = [
    ("The answer is 42.", "42"),
    ("#### 42", "42"),
    ("####42", "42"),
    ("#### **$1,234.50**\nAll 7 of them.", "1234.5"),
    ("#### 5\nWait.\n#### 6", "6"),
    ("#### Step 1\nSo it is 9 of 10, no: 11.", "11"),
    ("so \\boxed{18} of 20", "18"),
    ("\\boxed{\\$1{,}250}", "1250"),
    ("\\boxed{\\frac{1}{2}} of 3", "0.5"),
    ("#### 3, not \\boxed{4}", "3"),
    ("It costs $18.00.", "18"),
    ("It fell to -3", "-3"),
    ("It fell to −3 degrees", "-3"),
    ("She owes -$5", "-5"),
    ("She owes $-5", "-5"),
    ("from 3-4", "4"),
    ("(2)-1", "1"),
    ("half, 1/2", "0.5"),
    ("so...5", "5"),
    ("1, 2,3", "3"),
    ("1,000,000 people", "1000000"),
    (".5", "0.5"),
    ("48/2 = 24", "24"),
    ("5kg", "5"),
]


@pytest.mark.parametrize(("text", "number"), RESULTS)
def test_the_result_of_a_text(text: str, number: str) -> None:
    found = mathematics.result_of(text)
    assert found is not None
    assert found.number == Decimal(number)


@pytest.mark.parametrize("text", ["", "no number", "- $ .", "1/0"])
def test_texts_without_a_result(text: str) -> None:
    assert mathematics.result_of(text) is None
    assert programs.math("", text, {"answer": "#### 1"}) == 0


@given(
    st.decimals(-(10**9), 10**9, places=2),
    st.sampled_from(["{}", "#### {}", "The answer is {}.", "\\boxed{{{}}}", "3 and 4, so {}", "**{}**", "= {} dollars"]),
    st.booleans(),
    st.booleans(),
)
def test_a_number_is_read_however_it_is_written(number: Decimal, sentence: str, commas: bool, dollar: bool) -> None:
    written = f"{abs(number):{',' if commas else ''}.2f}"
    written = ("-" if number < 0 else "") + ("$" if dollar else "") + written
    row = {"answer": f"because\n#### {number}"}
    assert programs.math("?", sentence.format(written), row) == 1
    assert programs.math("?", sentence.format(written) + "1" if sentence.endswith("{}") else "no", row) == 0


@given(st.text())
def test_any_text_is_scored(text: str) -> None:
    for name, program in PROGRAMS.items():
        assert 0 <= resolve.score(program, name, "?", text, {"answer": "1", "pattern": "a+"}) <= 1
    assert 0 <= concise("?", text, {}) <= 1


def test_long_digits() -> None:
    """Longer than int() reads."""
    digits = "7" * 100_000
    assert programs.math("?", f"#### {digits}", {"answer": digits}) == 1


def test_gold_answers() -> None:
    """GSM8K's own solutions score 1, and 0 when the result is one more."""
    if not GSM8K.is_file():
        pytest.skip(f"GSM8K is not at {GSM8K}")
    with gzip.open(GSM8K, "rt") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == 7473
    for row in rows:
        steps, gold = row["answer"].split("\n#### ")
        assert programs.math(row["question"], row["answer"], row) == 1
        assert programs.math(row["question"], f"So it is ${gold}.", row) == 1
        assert programs.math(row["question"], f"{steps}\n#### {int(gold.replace(',', '')) + 1}", row) == 0
    shifted = [programs.math("", rows[i - 1]["answer"], row) for i, row in enumerate(rows)]
    assert sum(shifted) / len(shifted) < 0.05


def test_regex() -> None:
    assert programs.regex("?", "It is Paris.", {"pattern": r"\bparis\b"}) == 0
    assert programs.regex("?", "It is Paris.", {"pattern": r"(?i)\bparis\b"}) == 1


@pytest.mark.parametrize(
    ("text", "valid"), [('{"a": [1, null]}', 1), (" 3 ", 1), ("{'a': 1}", 0), ("", 0), ("NaN", 0), ("{} {}", 0), ("[" * 100_000, 0)]
)
def test_json(text: str, valid: int) -> None:
    assert programs.json_valid("?", text, {}) == valid


@pytest.mark.parametrize(("text", "ends"), [("Yes.", 1), ("Yes!\n", 1), ('"Yes?"', 1), ("(Yes.)", 1), ("Yes", 0), ("Yes,", 0), ("", 0)])
def test_ends(text: str, ends: int) -> None:
    assert programs.ends("?", text, {}) == ends


def test_brevity() -> None:
    """exp(-words / 20); no words, no reward."""
    assert programs.brevity("?", "one two\nthree four", {}) == exp(-0.2)
    assert programs.brevity("?", " ", {}) == 0


def test_concise() -> None:
    """5 words of the 8 it wants, and a full stop: 5 / 8 * (0.5 + 0.5 * 35 / 40); without it 5 / 8 * 0.4375. 50 words: 0.5 and 0. No words, no reward."""
    assert concise("?", "Bread is baked from dough.", {}) == 0.5859375
    assert concise("?", "Bread is baked from dough", {}) == 0.2734375
    assert concise("?", "so " * 49 + "on.", {}) == 0.5
    assert concise("?", "so " * 50, {}) == 0
    assert concise("?", " ", {}) == 0


def test_find_builtin_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is looked for in the working directory, then in the repository."""
    monkeypatch.chdir(tmp_path)
    assert all(resolve.find(name) is program for name, program in PROGRAMS.items())
    assert resolve.find("workbench/rewards/example.py:concise")("?", "Bread is baked from dough.", {}) == 0.5859375
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Word:\n    n: int\ndef length(prompt, response, row):\n    return Word(len(response)).n\n"
    )
    assert resolve.score(resolve.find("mine.py:length"), "length", "?", "four", {}) == 4
    assert resolve.find(f"{tmp_path}/mine.py:length")("?", "four", {}) == 4


MINE = "def length(prompt, response, row):\n    return 1\ndef short(response):\n    return 1\nLIMIT = 3\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "maths",
            r"there is no reward program 'maths'.*math.*there are: math, regex, json_valid, ends, brevity; or your own as path/to/file\.py:function",
        ),
        ("mine.py", r"expected path/to/file\.py:function"),
        ("mine.txt:length", r"expected path/to/file\.py:function"),
        ("mine.py:", r"expected path/to/file\.py:function"),
        ("mien.py:length", r"no file mien\.py .*did you mean mine\.py\?"),
        ("nowhere/mine.py:length", r"no file nowhere/mine\.py"),
        ("mine.py:lenght", r"mine\.py has no function 'lenght'.*length.*it has: length, short"),
        ("mine.py:LIMIT", r"no function 'LIMIT'"),
        ("mine.py:short", r"short\(response\) cannot be called as short\(prompt, response, row\)"),
        ("broken.py:length", r"broken\.py cannot be run: ZeroDivisionError"),
        ("torn.py:length", r"torn\.py cannot be run: SyntaxError"),
    ],
)
def test_what_is_not_found(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file, text in (("mine", MINE), ("broken", "1 / 0"), ("torn", "def")):
        (tmp_path / f"{file}.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        resolve.find(name)
    with pytest.raises(ValueError, match="no function" if name.startswith("broken") else message):  # a check does not run the file
        resolve.check(name)


def test_a_check_runs_nothing_and_believes_what_only_running_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "1 / 0\nfrom functools import partial, lru_cache\ntry:\n    def inner(p, r, row, scale=1): ...\nexcept ValueError:\n    inner = None\n"
        "made = partial(inner, scale=2)\n@lru_cache\ndef cached(odd): ...\ndef keyword(p, r, row, *, need): ...\ndef rest(*all): ...\nasync def later(p, r, row): ...\n"
    )
    for name in ("inner", "made", "cached", "rest", "partial"):
        resolve.check(f"mine.py:{name}")
    with pytest.raises(ValueError, match="missing a required"):
        resolve.check("mine.py:keyword")
    with pytest.raises(ValueError, match="no function 'later'"):
        resolve.check("mine.py:later")
    (tmp_path / "open.py").write_text("from mine import *\n")
    resolve.check("open.py:anything")


def test_shaping() -> None:
    """65 tokens and more cost 0.01 each, there; the reward itself is the last token's. A number is the whole answer's."""
    unhurried = resolve.find("workbench/rewards/example.py:unhurried", resolve.SHAPING)
    resolve.check("workbench/rewards/example.py:unhurried", resolve.SHAPING)
    answer = Answer("?", "!", {}, {"short": 1.0}, 2.0, ["a"] * 66, "stop")
    whole, by_token = shaped(unhurried, "u", answer)
    assert whole == pytest.approx(1.98)
    assert by_token is not None
    assert by_token.tolist() == [0.0] * 64 + [-0.01, 1.99]
    assert shaped(lambda answer: answer.reward / len(answer.pieces), "u", answer) == (2 / 66, None)


@pytest.mark.parametrize("value", [None, "1", float("nan"), [1.0], [1.0, float("inf")], [[1.0], [2.0]]])
def test_what_is_no_shaped_reward(value: object) -> None:
    answer = Answer("Why?", "!", {}, {}, 2.0, ["a", "b"], "stop")
    with pytest.raises(ValueError, match=r"shaping odd failed on the prompt 'Why\?'.*expected a finite number, or one for each of the 2 tokens"):
        shaped(lambda answer: value, "odd", answer)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match=r"shaping odd failed .*ZeroDivisionError"):
        shaped(lambda answer: 1 / 0, "odd", answer)
    with pytest.raises(ValueError, match="there is no shaping function 'gentle'; name it as path/to/file.py:function"):
        resolve.check("gentle", resolve.SHAPING)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "1", [1, 2], 10**400])
def test_what_is_no_reward(value: object) -> None:
    with pytest.raises(ValueError, match=r"reward odd failed on the prompt 'Why is the sky blue\?'.*it returned .*a reward is a finite number"):
        resolve.score(lambda prompt, response, row: value, "odd", "Why is\nthe sky  blue?", "!", {})  # type: ignore[arg-type,return-value]


def test_a_program_that_fails() -> None:
    with pytest.raises(ValueError, match=r"reward solved failed on the prompt 'aaa.*'…: ValueError: the row has no column 'answer' .columns: text."):
        resolve.score(programs.math, "solved", "a" * 200, "3", {"text": "b"})
    with pytest.raises(ValueError, match="the row's answer has no number and is no formula: 'none'"):
        programs.math("?", "3", {"answer": "none"})
    with pytest.raises(ValueError, match="reward regex failed on .*: error: "):
        resolve.score(programs.regex, "regex", "?", "3", {"pattern": "("})
