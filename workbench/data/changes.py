"""What the settings change about a source's rows before a format reads them: a function of the user's, and columns under other names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from workbench.data.decoding import Broken
from workbench.data.formats import Pairs
from workbench.settings import Data, functions, plain
from workbench.settings.naming import nearest
from workbench.settings.sources import DataError

_SHOWN = 60


@dataclass(frozen=True)
class Changes:
    """As `data.columns`, `data.map` and `data.pairs`."""

    columns: Mapping[str, str | None] = field(default_factory=dict)
    map: str | None = None
    pairs: Pairs = "extremes"

    @classmethod
    def of(cls, data: Data) -> Changes:
        return cls(data.columns, data.map, data.pairs)

    def mapped(self, rows: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object]]:
        """The rows as the user's function makes them, which is run here.

        Raises:
            DataError: there is no such function, or its file cannot be run. What the function raises for a row makes that a `Broken`.
        """
        if self.map is None:
            yield from rows
            return
        try:
            function = functions.find(self.map, functions.MAP)
        except ValueError as error:
            raise DataError(f"data.map: {error}") from error
        for where, row in rows:
            if isinstance(row, Broken):
                yield where, row
                continue
            try:
                made: object = function(row)
            except Exception as error:  # whatever a user's function raises is reported as its own
                yield where, Broken(f"a row that data.map={self.map} takes", f"{type(error).__name__}: {error}"[:500])
                continue
            for each in made if isinstance(made, list) else () if made is None else (made,):
                good = isinstance(each, dict) and all(isinstance(key, str) for key in each)
                yield where, each if good else Broken(f"a dict of columns, a list of them or None from data.map={self.map}", repr(each)[:_SHOWN])

    def check(self, source: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Raises DataError: none of these rows has a column that `columns` names."""
        for ours, theirs in self.columns.items():
            if theirs is not None and all(_at(row, theirs) is None for row in rows):
                known = sorted({str(key) for row in rows for key in row})
                raise DataError(
                    f"{source}: data.columns.{ours}: there is no column {theirs!r}{nearest(theirs, known)}; there are: {', '.join(known[:20])}"
                )

    def replaced(self, row: Mapping[str, object]) -> Iterator[str]:
        """The columns of the row whose place another one takes."""
        for ours, theirs in self.columns.items():
            if theirs not in (None, ours) and row.get(ours) is not None and ours not in self.columns.values():
                yield f"{ours}, whose place {theirs} takes"

    def renamed(self, row: Mapping[str, object]) -> Mapping[str, object]:
        """The row with our names; a column that is renamed to one that is there takes its place."""
        if not self.columns:
            return row
        taken = {theirs for theirs in self.columns.values() if theirs is not None}
        kept = {key: value for key, value in row.items() if key not in taken and key not in self.columns}
        return kept | {ours: _at(row, theirs) for ours, theirs in self.columns.items() if theirs is not None}


def as_columns(text: str) -> dict[str, str | None]:
    """`{prompt: query, label: null}` as a mapping, empty for an empty text. Raises ValueError: it is none of column names."""
    given = plain.load(text) if text.strip() else {}
    if not isinstance(given, dict) or not all(isinstance(name, str) and isinstance(column, str | None) for name, column in given.items()):
        raise ValueError(f"data.columns: expected our names with the file's, such as {{prompt: query, label: null}}; got {text}")
    return given


def _at(row: Mapping[str, object], path: str) -> object:
    """The column of this name, else what lies below it: `a.b` is b within a."""
    if path in row:
        return row[path]
    value: object = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
