"""Rewards that come with the workbench. Each takes (prompt, response, row): the row's columns beside the prompt, as text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from math import exp

_NUMBER = re.compile(
    r"(?:\$?(?<![\w)\]}])[-−](?=\\?\$?[\d.]))?\\?\$?"  # a minus that follows a word or a bracket is a difference
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+)(?:/(?P<below>\d+))?"
)
_MARKED = (re.compile(rf"####[ \t*]*(?P<marked>{_NUMBER.pattern})"), re.compile(rf"\\boxed\{{\s*(?P<marked>{_NUMBER.pattern})"))
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_CLOSING = "\"'”’)*_ \n\t"
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")


def math(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """1 if the response's result is the number that `row["answer"]` ends with, else 0.

    The result is the last number marked `#### 42` (as GSM8K writes it, arXiv 2110.14168), else the last one in `\\boxed{}`, else the last
    number of all. `$1,250.50`, `-3` and `1/2` are numbers; 18 and 18.00 are the same.

    Raises:
        ValueError: the row has no column answer, or no number in it.
    """
    expected = result_of(_column(row, "answer"))
    if expected is None:
        raise ValueError(f"the row's answer has no number: {row['answer'][-60:]!r}")
    return float(result_of(response) == expected)


def regex(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """1 if Python's regular expression `row["pattern"]` is found anywhere in the response, else 0.

    Raises:
        ValueError: the row has no column pattern.
        re.error: it is no regular expression.
    """
    return float(re.search(_column(row, "pattern"), response) is not None)


def json_valid(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """1 if the whole response is one JSON value (RFC 8259, so not NaN), else 0."""
    try:
        json.loads(response, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def ends(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """1 if the response ends as a sentence does (. ! ? …, closing quotes and brackets after it allowed), else 0."""
    return float(response.rstrip(_CLOSING).endswith(_SENTENCE_ENDS))


def brevity(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """exp(-words / 20): 0.95 for one word, 0.61 for ten, 0.37 for twenty; 0 for a response without words."""
    length = len(response.split())
    return exp(-length / 20) if length else 0.0


PROGRAMS = {function.__name__: function for function in (math, regex, json_valid, ends, brevity)}
"""The rewards by the names that settings give them."""


def result_of(text: str) -> Decimal | None:
    """The number a text comes to (see `math`), or None."""
    text = _FRACTION.sub(r"\1/\2", text).replace("{,}", ",")
    for marked in _MARKED:
        if matches := [match["marked"] for match in marked.finditer(text)]:
            return _value(matches[-1])
    matches = [match[0] for match in _NUMBER.finditer(text)]
    return _value(matches[-1]) if matches else None


def _value(written: str) -> Decimal | None:
    match = _NUMBER.fullmatch(written)
    assert match, written
    number = Decimal(match["number"].replace(",", ""))
    if match["below"]:
        below = Decimal(match["below"])
        if not below:
            return None
        number /= below
    return -number if set("-−") & set(written) else number


def _column(row: Mapping[str, str], name: str) -> str:
    if name not in row:
        raise ValueError(f"the row has no column {name!r}")
    return row[name]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
