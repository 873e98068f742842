"""Read rows from a file or a hub: every bad row is reported with file:line, what was expected and what was found."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from workbench.data import contents, decoding
from workbench.data.changes import Changes
from workbench.data.decoding import Broken
from workbench.data.formats import Asked, brief, detect, parse
from workbench.data.json_rows import json_rows
from workbench.data.limits import Limits
from workbench.data.markup import Markup
from workbench.data.rows import Kind, Malformed, TextRow, Unreadable
from workbench.settings.sources import DATA_ENDINGS, DataError, locate

__all__ = ["BadRow", "Changes", "DataError", "Kind", "Rows", "data_file", "read"]

BAD_KEPT = 1000
HEAD = 64
"""Rows whose keys tell the format together."""
_SHOWN = 5
_FOUND_CHARACTERS = 500


@dataclass(frozen=True)
class BadRow:
    """A row that was not taken: its place (`file:line`), what its schema asks for, what stood there."""

    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}; found {self.found}"


@dataclass(frozen=True)
class Rows:
    """What a source gave: the good rows, the first `BAD_KEPT` of the others, and how many those are in all. `notes` say in a sentence each what was not read,
    or is likely not meant."""

    rows: list[TextRow]
    bad: list[BadRow]
    format: str
    num_bad: int
    notes: list[str] = field(default_factory=list)

    def refuse(self, source: str, on_bad_row: str) -> None:
        """Raises DataError: there are bad rows and `on_bad_row` is error, or there is no good row."""
        total = self.num_bad + len(self.rows)
        if self.bad and (on_bad_row == "error" or not self.rows):
            kinds = list({(row.expected, row.found): row for row in reversed(self.bad)}.values())[::-1][:_SHOWN]
            listed = "\n".join(f"  {row}" for row in kinds)
            more = f"\n  … and {self.num_bad - len(kinds):,} more" if self.num_bad > len(kinds) else ""
            advice = f"mend them, or set data.on_bad_row=skip to train on the {len(self.rows):,} good rows" if self.rows else "no row is good"
            raise DataError(f"{source}: {self.num_bad:,} of {total:,} rows are malformed ({advice}):\n{listed}{more}")
        if not self.rows:
            raise DataError(f"{source}: there are no rows in it")


def read(
    source: str,
    kind: Kind,
    format: str = "auto",
    on_bad_row: str = "error",
    limit: int | None = None,
    limits: Limits | None = None,
    changes: Changes | None = None,
) -> Rows:
    """All rows of a source, or of its first `limit`.

    Args:
        source: a .jsonl, .json or .parquet file, the first two also with .gz (relative to the working directory, else to the repository), or a
            Hugging Face dataset id, `name`, `name:split` or `name:configuration:split`.
        format: a name in `formats.SCHEMAS`, or auto: as the keys of the first rows say.
        on_bad_row: `error` refuses the source when any row is bad; `skip` leaves those out and lists them.
        limits: what decoding it may take.
        changes: what is done to a row before it is read.

    Raises:
        DataError: there is no such source, it has bad rows and `on_bad_row` is error, or no good row at all; or it goes beyond the limits; or
            `changes` name what is not there.
    """
    reading = _Reading(source, kind, format, changes or Changes())
    with contextlib.closing(_raw_rows(source, limits or Limits())) as raw_rows:
        rows = reading.changes.mapped(islice(raw_rows, limit))
        while head := list(islice(rows, HEAD)):
            reading.take(head)
    result = reading.result()
    result.refuse(source, on_bad_row)
    return result


@dataclass
class _Reading:
    """What is read so far. The first rows tell the format, and which columns there are."""

    source: str
    kind: Kind
    format: str
    changes: Changes
    rows: list[TextRow] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    num_bad: int = 0
    num_read: int = 0
    began: bool = False
    unread: Counter[str] = field(default_factory=Counter)
    unread_of_turns: Counter[str] = field(default_factory=Counter)
    unreadable: dict[str, Unreadable] = field(default_factory=dict)
    replaced: Counter[str] = field(default_factory=Counter)
    doubts: Counter[str] = field(default_factory=Counter)
    markup: Markup = field(default_factory=Markup)

    def take(self, head: Iterable[tuple[str, object]]) -> None:
        """Raises DataError: `data.columns` names a column that none of the first rows has."""
        given = [(where, raw) for where, raw in head]
        objects = [raw for _, raw in given if isinstance(raw, dict)]
        if objects and not self.began:
            self.changes.check(self.source, objects)
            self.began = True
        self.replaced.update(name for raw in objects for name in self.changes.replaced(raw))
        renamed = [(where, self.changes.renamed(raw) if isinstance(raw, dict) else raw) for where, raw in given]
        unknown: Malformed | None = None
        if self.format == "auto" and objects:
            try:
                self.format = detect([raw for _, raw in renamed if isinstance(raw, Mapping)], self._asked(""))
            except Malformed as error:
                unknown = error
        for where, raw in renamed:
            try:
                self._take(where, raw, unknown)
            except Malformed as error:
                self._refuse(where, error)

    def _take(self, where: str, raw: object, unknown: Malformed | None) -> None:
        if isinstance(raw, Broken):
            raise Malformed(raw.expected, raw.found)
        if not isinstance(raw, Mapping):
            raise Malformed("a JSON object", brief(raw))
        if unknown:
            raise unknown
        asked = self._asked(where)
        rows, unread = parse(raw, self.format, asked)
        self.rows += rows
        self.num_read += 1
        self.unread.update(unread)
        self.unread_of_turns.update(asked.unread)
        self.doubts.update(asked.doubts)
        self.unreadable.update({name: value for name in unread if isinstance(value := raw[name], Unreadable)})
        for row in rows:
            self.markup.look(row)

    def _refuse(self, where: str, error: Malformed) -> None:
        self.num_bad += 1
        if len(self.bad) < BAD_KEPT:
            self.bad.append(BadRow(where, *(text[:_FOUND_CHARACTERS] for text in error.args)))

    def _asked(self, where: str) -> Asked:
        named = frozenset(ours for ours, theirs in self.changes.columns.items() if theirs is not None)
        return Asked(self.kind, where, self.changes.pairs, named)

    def result(self) -> Rows:
        return Rows(self.rows, self.bad, self.format, self.num_bad, list(self._notes()))

    def _notes(self) -> Iterator[str]:
        for name, value in self.unreadable.items():
            yield f"{self.source}: the column {name} is not read, and could not be: {value!r}"
        if self.replaced:
            yield f"{self.source}: columns of the file that data.columns replaces, which are not read: {self._counted(self.replaced)}"
        for doubt, count in self.doubts.items():
            yield f"{self.source}: {count:,} of {self.num_read:,} rows {doubt}"
        if self.unread:
            yield f"{self.source}: columns that format {self.format} does not read: {self._counted(self.unread)}"
        if self.unread_of_turns:
            yield f"{self.source}: keys of turns that are not read: {self._counted(self.unread_of_turns)}"
        yield from (f"{self.source}: {note}" for note in self.markup.notes())

    def _counted(self, unread: Counter[str]) -> str:
        """The names, each with the number of its rows where that is not all."""
        return ", ".join(
            name if count == self.num_read else f"{name} (in {count:,} of {self.num_read:,} rows)" for name, count in unread.most_common()
        )


def data_file(source: str) -> Path | None:
    """The file that a source names, or None for a hub id.

    Raises:
        DataError: it is not there, its name does not end as a data file's, or its content is not what the name says.
    """
    path = locate(source)
    if path and not path.name.endswith(DATA_ENDINGS):
        raise DataError(f"{source}: a data file ends in one of {', '.join(DATA_ENDINGS)}")
    if path:
        contents.check(path)
    return path


def _raw_rows(source: str, limits: Limits) -> Generator[tuple[str, object]]:
    path = data_file(source)
    if path is None:
        name, *parts = source.split(":")
        split = parts[-1] if parts else "train"
        return decoding.hub_rows(name, parts[0] if len(parts) == 2 else None, split, limits)
    return decoding.parquet_rows(path, limits) if path.name.endswith(".parquet") else json_rows(path, limits)
