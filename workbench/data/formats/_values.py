"""A row's values: texts, numbers, objects, each read or refused with `Malformed`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import cast

from workbench.data.rows import Malformed, Unreadable

Raw = Mapping[str, object]
"""A row as its file has it, without the columns that are null."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_BRIEF = 60


def brief(value: object) -> str:
    """What was found, short: the type, and the beginning of the value."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"int of {value.bit_length():,} bits"
    text = repr(value)
    if isinstance(value, Unreadable):
        return text
    return f"{type(value).__name__} {text[:_BRIEF]}{'…' if len(text) > _BRIEF else ''}"


def keys(row: Raw) -> str:
    return f"keys {sorted(map(str, row))[:10]}"


def value(row: Raw, key: str) -> object:
    if key not in row:
        raise Malformed(f"the key {key!r}", keys(row))
    return row[key]


def text(row: Raw, key: str) -> str:
    return string(value(row, key), key)


def string(given: object, key: str) -> str:
    if not isinstance(given, str):
        raise Malformed(f"{key}: a string", brief(given))
    return given


def filled(given: str, key: str) -> str:
    """The text, where it is one that can be learnt."""
    if not given.strip():
        raise Malformed(f"{key}: text", "an empty string" if not given else "white space only")
    return clean(given, key)


def clean(given: str, key: str) -> str:
    """The text, which may be empty, where every tokenizer takes its characters."""
    if "\0" in given:
        raise Malformed(f"{key}: text without NUL characters", f"one at character {given.index(chr(0))}")
    if _SURROGATE.search(given):
        raise Malformed(f"{key}: valid Unicode", "half of a surrogate pair")
    return given


def as_text(given: object, key: str) -> str:
    """A text as it is, anything else as JSON; what JSON has not (a date of a parquet file) as Python shows it."""
    if isinstance(given, str):
        return clean(given, key)
    if isinstance(given, Unreadable):
        raise Malformed(f"{key}: a value that can be decoded (data.columns={{{key}: null}} leaves the column out)", brief(given))
    try:
        return clean(json.dumps(given, ensure_ascii=False, default=str), key)
    except (RecursionError, ValueError, TypeError) as error:
        raise Malformed(f"{key}: a value that can be written as text", f"{type(given).__name__}: {error}") from error


def number(given: object, key: str, expected: str = "a finite number") -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise Malformed(f"{key}: {expected}", brief(given))
    try:
        read = float(given)
    except OverflowError:
        raise Malformed(f"{key}: {expected}", brief(given)) from None
    if read != read or abs(read) == float("inf"):
        raise Malformed(f"{key}: {expected}", brief(given))
    return read


def objects(given: object, key: str) -> list[Raw]:
    """A list of JSON objects that is not empty, without their null values."""
    if not isinstance(given, list) or not given:
        raise Malformed(f"{key}: a list of objects", brief(given))
    for i, item in enumerate(given):
        if not isinstance(item, Mapping):
            raise Malformed(f"{key}[{i}]: an object", brief(item))
    return [present(cast(Raw, item)) for item in given]


def present(row: Raw) -> Raw:
    """What of a row or a turn has a value: a column that is null is not there."""
    return {key: value for key, value in row.items() if value is not None}


def first_of(names: Iterable[str], row: Raw, default: str) -> str:
    """The first of these names that the row has."""
    return next((name for name in names if name in row), default)
