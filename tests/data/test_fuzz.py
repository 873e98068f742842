"""Mutated inputs over all readers: malformed rows and data errors with their place, nothing else, and no other row is lost.

500 in CI, 10,000 by `make slow`; each is made from its number alone, so that a failure can be repeated.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.rows import READ, full
from workbench.data.readers import DataError, Kind, read
from workbench.data.rows import TextRow

GOOD = 6
"""Rows around the mutated one."""
PARQUET_EVERY = 100
BYTES = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\n",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud83d",
    b"\\u0000",
    b"[" * 5000,
    b"9" * 5000,
    b"1e999",
    b"-",
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 0.5, float("nan"), float("inf"), 10**400, "", " ", "x", "\0", "\ud83d", "x" * 5000, [], {}, [[]], [None], {"": None}),
    *({"a": 1}, [{"role": "user", "content": "x"}], [{}], "<|im_start|>", "\n\nHuman: x", "{", ["a", "b"], {"type": "text", "text": "x"}),
)
KEYS = (
    "prompt",
    "chosen",
    "rejected",
    "messages",
    "label",
    "system",
    "tools",
    "history",
    "weight",
    "input",
    "text",
    "answers",
    "\ud83d",
    "",
    "role",
    "from",
)


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value within."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [node for key, inner in items for node in ((value, key), *nodes(inner))]


def reshaped(row: dict[str, Any], rng: random.Random) -> bytes:
    """The row with a value, a key or an item changed."""
    row = json.loads(json.dumps(row))
    container, key = rng.choice(nodes(row))
    match rng.randrange(4):
        case 0:
            container[key] = rng.choice(VALUES)
        case 1:
            del container[key]
        case 2 if isinstance(container, dict):
            container[rng.choice(KEYS)] = container.pop(key)
        case _:
            row[rng.choice(KEYS)] = rng.choice(VALUES)
    return json.dumps(row).encode()


def garbled(line: bytes, rng: random.Random) -> bytes:
    """The bytes with some changed, taken out, put in or said twice."""
    for _ in range(rng.choice((1, 1, 1, 3))):
        at = rng.randrange(len(line) + 1)
        upto = min(len(line), at + rng.choice((1, 1, 4, 40)))
        match rng.randrange(5):
            case 0:
                line = line[:at] + bytes([rng.randrange(256)]) + line[at + 1 :]
            case 1:
                line = line[:at] + line[upto:]
            case 2:
                line = line[:at] + rng.choice(BYTES) + line[at:]
            case 3:
                line = line[:upto] + line[at:]
            case _:
                line = line[:at]
    return line


def lines(rows: list[bytes]) -> bytes:
    return b"".join(row + b"\n" for row in rows)


def array(rows: list[bytes]) -> bytes:
    return b"[" + b",".join(rows) + b"]"


def pretty(rows: list[bytes]) -> bytes:
    return b"[\n  " + b",\n  ".join(rows) + b"\n]\n"


WRITTEN: dict[str, Callable[[list[bytes]], bytes]] = {
    "rows.jsonl": lines,
    "array.json": array,
    "pretty.json": pretty,
    "rows.jsonl.gz": lambda rows: gzip.compress(lines(rows), 1),
    "array.json.gz": lambda rows: gzip.compress(array(rows), 1),
}


def short(rows: list[TextRow]) -> Counter[str]:
    return Counter(f"{type(row).__name__} {full(row)}" for row in rows)


def one_row_is_mutated(folder: Path, number: int) -> None:
    """All other rows are read, at their places where these are known."""
    rng = random.Random(number)
    kind, form, row, _ = READ[rng.choice(list(READ))]
    plain = json.dumps(row).encode()
    mutated = reshaped(row, rng) if rng.random() < 0.5 else garbled(plain, rng)
    at = rng.randrange(GOOD + 1)
    name = rng.choice(list(WRITTEN))
    path = folder / name
    path.write_bytes(WRITTEN[name]([plain] * at + [mutated] + [plain] * (GOOD - at)))
    (folder / "good.jsonl").write_bytes(plain)
    good = read(str(folder / "good.jsonl"), kind)
    found = read(str(path), kind, on_bad_row="skip")
    assert found.format == form
    for each, count in short(good.rows).items():
        assert short(found.rows)[each] >= GOOD * count, f"lost: {each}; malformed: {[str(bad) for bad in found.bad]}"
    assert {f"{path}:{i}" for i in range(1, at + 1)} <= {each.where for each in found.rows}
    assert all(bad.where.startswith(f"{path}:") and bad.expected and bad.found for bad in found.bad)
    "".join([*map(str, found.bad), *found.notes]).encode()
    try:
        read(str(path), rng.choice(get_args(Kind)), on_bad_row=rng.choice(("error", "skip")))
    except DataError as error:
        assert str(path) in str(error)
        str(error).encode()


def a_file_is_mutated(folder: Path, number: int) -> None:
    """A compressed or a binary file as a whole: what is read before the damage stays, and the place is said."""
    rng = random.Random(number)
    rows = [{"prompt": f"{i}?", "chosen": "a" * i, "rejected": "b"} for i in range(50)]
    buffer = io.BytesIO()
    if packed := rng.random() < 0.7:
        buffer.write(gzip.compress(lines([json.dumps(row).encode() for row in rows]), 1))
    else:
        pq.write_table(pa.Table.from_pylist(rows), buffer)
    path = folder / ("whole.jsonl.gz" if packed else "whole.parquet")
    path.write_bytes(garbled(buffer.getvalue(), rng))
    try:
        found = read(str(path), "preference", on_bad_row="skip")
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert found.rows
        assert all(bad.where.startswith(f"{path}:") for bad in found.bad)


def fuzz(folder: Path, numbers: range) -> None:
    for number in numbers:
        try:
            (a_file_is_mutated if number % PARQUET_EVERY == 0 else one_row_is_mutated)(folder, number)
        except Exception as error:
            raise AssertionError(f"input {number}: {type(error).__name__}: {error}") from error


def test_500_mutated_inputs(tmp_path: Path) -> None:
    fuzz(tmp_path, range(500))


@pytest.mark.slow
def test_10_000_mutated_inputs(tmp_path: Path) -> None:
    fuzz(tmp_path, range(500, 10_500))
