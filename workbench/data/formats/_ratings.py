"""Ratings of an answer, by attribute."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from workbench.data.formats._values import Raw, brief, clean, number
from workbench.data.rows import Malformed

_RATING = re.compile(r"\s*([^\s:,][^:,]*?)\s*:\s*(-?\d+(?:\.\d+)?)\s*")


def attributes(value: object, key: str) -> dict[str, float]:
    """Ratings from a mapping, or from `quality:4,toxicity:0`."""
    if isinstance(value, Mapping):
        return ratings(cast(Raw, value), f"{key}.")
    matches = [_RATING.fullmatch(part) for part in value.split(",")] if isinstance(value, str) else [None]
    pairs = [(match[1], match[2]) for match in matches if match]
    if len(pairs) < len(matches) or len(dict(pairs)) < len(pairs):
        raise Malformed(f'{key}: a mapping of numbers, or text such as "quality:4,toxicity:0" that names each once', brief(value))
    return {name: number(float(given), f"{key}.{name}") for name, given in pairs}


def ratings(values: Raw, key: str) -> dict[str, float]:
    """The columns of numbers, by name; those that are null were not rated."""
    for name in values:
        clean(str(name), f"{key}a rating's name")
    read = {name: number(value, f"{key}{name}", "a finite number, or null") for name, value in values.items() if value is not None}
    if not read:
        raise Malformed(f"at least one rating in {key.rstrip('.')}", f"{list(values)[:10]}")
    return read
