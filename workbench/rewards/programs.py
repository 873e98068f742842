"""Reward functions that come with the project. Each is `f(prompt, response, row) -> float`; `row` has the data row's further columns as text."""

from __future__ import annotations

import json
import math as _math
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?|-?\$?\.\d+")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


def math(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """1 where the response's result is the row's `answer`, else 0. The result stands after `####`, in \\boxed{}, or is the last number."""
    expected = result_of(row["answer"])
    return float(expected is not None and result_of(response) == expected)


def regex(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """1 where the row's `pattern` is found in the response."""
    return float(re.search(row["pattern"], response) is not None)


def json_valid(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """1 where the whole response is JSON."""
    try:
        json.loads(response)
    except ValueError:
        return 0.0
    return 1.0


def ends(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """1 where the response ends as a sentence does."""
    return float(response.rstrip().endswith((".", "!", "?", '."', '!"', '?"')))


def brevity(prompt: str, response: str, row: Mapping[str, str]) -> float:
    """exp(-words / 20): 1 for nothing, 0.37 for 20 words."""
    return _math.exp(-len(response.split()) / 20)


def result_of(text: str) -> Decimal | None:
    """The number that a worked answer comes to; None where it has none."""
    place = text.rpartition("####")[2] if "####" in text else next(reversed(_BOXED.findall(text)), text)
    numbers = _NUMBER.findall(place)
    if not numbers:
        return None
    try:
        return Decimal((numbers[0] if place is not text else numbers[-1]).replace(",", "").replace("$", ""))
    except InvalidOperation:
        return None
