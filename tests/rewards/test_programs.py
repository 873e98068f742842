"""Reward programs: the numbers they give, and what is said of one that fails."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.rewards import programs, resolve
from workbench.rewards.example import concise

GSM8K = Path(__file__).parents[3] / "shared/data/gsm8k/train.jsonl.gz"


def test_gold_answers_are_right_and_others_wrong() -> None:
    if not GSM8K.exists():
        pytest.skip(f"no {GSM8K}")
    with gzip.open(GSM8K, "rt") as file:
        rows = [json.loads(line) for line in file]
    assert all(programs.math(row["question"], row["answer"], row) == 1 for row in rows)
    shifted = [programs.math("", rows[i - 1]["answer"], row) for i, row in enumerate(rows)]
    assert sum(shifted) / len(shifted) < 0.05


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9))
def test_a_number_is_the_same_however_it_is_written(number: Decimal) -> None:
    row = {"answer": f"so it is\n#### {number}"}
    assert programs.math("", f"It costs {number:,}", row) == 1
    assert programs.math("", f"First 3, then \\boxed{{{number}}}. Or 7?", row) == 1


def test_hand_made_scores() -> None:
    assert programs.json_valid("", '{"a": [1]}', {}) == 1
    assert programs.json_valid("", "{a}", {}) == 0
    assert programs.regex("", "abc 12", {"pattern": r"\d+$"}) == 1
    assert programs.ends("", "No.  ", {}) == 1
    assert programs.ends("", "No", {}) == 0
    assert concise("", "one two three four.", {}) == 0.5 + 0.5 * (1 - 4 / 40)
    assert concise("", "", {}) == 0


def test_a_file_of_ones_own_is_found_and_its_faults_are_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def good(prompt, response, row): return len(response)\ndef bad(prompt, response, row): return row['nope']\n")
    assert resolve.score(resolve.find(f"{file}:good"), "good", "p", "four", {}) == 4
    with pytest.raises(ValueError, match="reward bad failed on the prompt 'what'.*KeyError"):
        resolve.score(resolve.find(f"{file}:bad"), "bad", "what", "x", {})
    with pytest.raises(ValueError, match=r"has no function 'goood'; did you mean 'good'\?"):
        resolve.find(f"{file}:goood")
    with pytest.raises(ValueError, match=r"did you mean 'math'\?"):
        resolve.find("maths")
    with pytest.raises(ValueError, match="no finite number|finite number is wanted"):
        resolve.score(lambda *_: float("nan"), "n", "p", "r", {})
