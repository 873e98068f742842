"""Rows that a job adds something to: `<name>.jsonl` appears when it is whole, and as a table beside it; until then each step's rows are a line of `<name>.part`.

A kill loses what is not a whole line: a step's rows are there together or not at all, and the job continues after the last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from workbench.rundir import opening
from workbench.rundir.files import LONGEST_LINE, decoded, finite, replacing
from workbench.rundir.opening import Unreadable

ANNOTATED, SCORED, REWARDED, PAIRS = "annotated.jsonl", "scored.jsonl", "rewarded.jsonl", "pairs.jsonl"
MADE_BY: Mapping[str, str] = {"annotate": ANNOTATED, "logprobs": SCORED, "reward": REWARDED, "pairs": PAIRS}
"""The file that each kind of job writes."""
TELLING = ("attributes", "ratings", "expected", "probabilities", "reward", "rewards")
"""Columns of annotated.jsonl and rewarded.jsonl that tell of the row's answer."""


class StepLines:
    """The rows of one file, in the making. One process writes."""

    def __init__(self, folder: Path, name: str):
        self.path, self._part = folder / name, folder / f"{name.removesuffix('.jsonl')}.part"

    def steps(self, total: int) -> int:
        """How many of the steps are there. What a kill left of a line is cut off. Raises Unreadable for a whole line that is no list of rows."""
        if not opening.is_file(self._part):
            return total if opening.is_file(self.path) else 0
        with open(self._part, "r+b", opener=opening.opener) as file:
            count, end = 0, 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._rows(line)
                count, end = count + 1, end + len(line)
            file.truncate(end)
        return count

    def add(self, rows: Sequence[Mapping[str, object]]) -> None:
        """A step's rows. They are on the disk when this returns."""
        with open(self._part, "ab", opener=opening.opener) as file:
            file.write(json.dumps(finite(list(rows)), ensure_ascii=False, default=str).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> None:
        """Put all rows into the file; done already where there is no part left."""
        if not opening.is_file(self._part):
            return
        with replacing(self.path) as lines:
            for row in self._all():
                lines.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        opening.unlink(self._part)

    def _all(self) -> Iterator[object]:
        with open(self._part, "rb", opener=opening.opener) as file:
            for line in file:
                yield from self._rows(line)

    def _rows(self, line: bytes) -> list[object]:
        try:
            rows = decoded(line)
        except ValueError as error:
            raise Unreadable(self._part, f"no JSON: {error}") from None
        if not isinstance(rows, list):
            raise Unreadable(self._part, "a line that is no list of rows")
        return rows


def write(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """The rows of a file that is made at once; it appears whole, in place of what is there."""
    with replacing(path) as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def read_first(path: Path, count: int) -> list[Mapping[str, object]]:
    """The first rows of such a file, at most `count`. Raises FileNotFoundError, and Unreadable for a line that is no row."""
    rows: list[Mapping[str, object]] = []
    with open(path, "rb", opener=opening.opener) as file:
        while len(rows) < count and (line := file.readline(LONGEST_LINE)):
            try:
                row = decoded(line)
            except ValueError as error:
                raise Unreadable(path, f"line {len(rows) + 1} is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise Unreadable(path, f"line {len(rows) + 1} is no row")
            rows.append(row)
    return rows
