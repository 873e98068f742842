"""Rewards that come with the workbench. Each takes (prompt, response, row): the row's columns beside the prompt, as text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import exp

from workbench.rewards import mathematics

_CLOSING = "\"'”’)*_ \n\t"
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")


def math(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """1 if the response's result is that of `row["answer"]`, else 0: numbers compared exactly, formulas by math-verify.

    The result is the last number or formula marked `#### 42` (as GSM8K writes it, arXiv 2110.14168), else what is in the last `\\boxed{}`, else the last
    number of all, or where a formula is expected the last one. `$1,250.50`, `-3` and `1/2` are numbers; 18 and 18.00 are the same, `50\\%` is
    50 or 0.5, and a letter from A to J is a choice. A comparison that takes more than 5 seconds of processor time, or 2 GiB, gives 0.

    Raises:
        ValueError: the row has no column answer, or there is neither a number nor a formula in it.
    """
    return float(mathematics.same(_column(row, "answer"), response))


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


def _column(row: Mapping[str, str], name: str) -> str:
    if name not in row:
        raise ValueError(f"the row has no column {name!r}")
    return row[name]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
