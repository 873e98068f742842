"""Read rows from a file or a hub: every bad row is reported with file:line, what was expected and what was found."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.data import decoding
from workbench.data.decoding import Broken
from workbench.data.formats import SCHEMAS, detect, parse
from workbench.data.growth import Growth
from workbench.data.limits import ROW_BYTES, Limits
from workbench.data.rows import Malformed, TextRow
from workbench.settings.sources import DATA_ENDINGS, DataError, locate

Kind = Literal["preference", "conversation", "rated", "unpaired", "prompt"]
BAD_KEPT = 1000
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
    """What a source gave: the good rows, the first `BAD_KEPT` of the others, and how many those are in all."""

    rows: list[TextRow]
    bad: list[BadRow]
    format: str
    num_bad: int

    def refuse(self, source: str, on_bad_row: str) -> None:
        """Raises DataError: there are bad rows and `on_bad_row` is error, or there is no good row."""
        if self.bad and (on_bad_row == "error" or not self.rows):
            listed = "\n".join(f"  {row}" for row in self.bad[:_SHOWN])
            more = f"\n  … and {self.num_bad - _SHOWN} more" if self.num_bad > _SHOWN else ""
            advice = "mend them, or leave them out with data.on_bad_row=skip" if self.rows else f"no row is good; formats: {', '.join(SCHEMAS)}"
            raise DataError(f"{source}: {self.num_bad} of {self.num_bad + len(self.rows)} rows are malformed ({advice}):\n{listed}{more}")
        if not self.rows:
            raise DataError(f"{source}: there are no rows in it")


def read(source: str, kind: Kind, format: str = "auto", on_bad_row: str = "error", limit: int | None = None, limits: Limits | None = None) -> Rows:
    """All rows of a source, or of its first `limit`.

    Args:
        source: a .jsonl, .jsonl.gz or .parquet file (relative to the working directory, else to the repository), or a Hugging Face
            dataset id, `name`, `name:split` or `name:configuration:split`.
        format: a key of `SCHEMAS`, or auto: as the first good row's keys say.
        on_bad_row: `error` refuses the source when any row is bad; `skip` leaves those out and lists them.
        limits: what decoding it may take.

    Raises:
        DataError: there is no such source, it has bad rows and `on_bad_row` is error, or no good row at all; or it goes beyond the limits.
    """
    rows: list[TextRow] = []
    bad: list[BadRow] = []
    name, taken, num_bad = format, 0, 0
    with contextlib.closing(_raw_rows(source, limits or Limits())) as raw_rows:
        for where, raw in raw_rows:
            if limit is not None and taken >= limit:
                break
            taken += 1
            try:
                if isinstance(raw, Broken):
                    raise Malformed(raw.expected, raw.found)
                if name == "auto" and isinstance(raw, dict):
                    name = detect(raw)
                rows += parse(raw, name if name != "auto" else "preference", kind, where)
            except Malformed as error:
                num_bad += 1
                if len(bad) < BAD_KEPT:
                    bad.append(BadRow(where, *(text[:_FOUND_CHARACTERS] for text in error.args)))
    result = Rows(rows, bad, name, num_bad)
    result.refuse(source, on_bad_row)
    return result


def data_file(source: str) -> Path | None:
    """The file that a source names, or None for a hub id.

    Raises:
        DataError: it is not there, or its name does not end as a data file's.
    """
    path = locate(source)
    if path and not path.name.endswith(DATA_ENDINGS):
        raise DataError(f"{source}: a data file ends in one of {', '.join(DATA_ENDINGS)}")
    return path


def _raw_rows(source: str, limits: Limits) -> Generator[tuple[str, object]]:
    path = data_file(source)
    if path is None:
        name, *parts = source.split(":")
        split = parts[-1] if parts else "train"
        return decoding.hub_rows(name, parts[0] if len(parts) == 2 else None, split, limits)
    return decoding.parquet_rows(path, limits) if path.name.endswith(".parquet") else _json_rows(path, limits)


def _json_rows(path: Path, limits: Limits) -> Generator[tuple[str, object]]:
    packed = path.name.endswith(".gz")
    number = 0
    with path.open("rb") as stored, gzip.GzipFile(fileobj=stored) if packed else stored as file:
        growth = Growth(limits.expansion if packed else None)
        try:
            while line := file.readline(limits.row_bytes + 1):
                number += 1
                where = f"{path}:{number}"
                size = len(line)
                growth.check(size + ROW_BYTES, stored.tell(), where)
                if size > limits.row_bytes:
                    while not line.endswith(b"\n") and (line := file.readline(limits.row_bytes)):
                        size += len(line)
                        growth.check(len(line), stored.tell(), where)
                    expected = f"a line of at most {limits.row_bytes / 2**20:g} MiB (data.max_row_mb)"
                    yield where, Broken(expected, f"{size / 2**20:.1f} MiB")
                elif line.strip(b"\xef\xbb\xbf \t\r\n"):
                    yield where, _decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield f"{path}:{number + 1}", Broken("a whole gzip file", f"{type(error).__name__}: {error}")


def _decode(line: bytes) -> object:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        return Broken("UTF-8 text", f"byte 0x{line[error.start]:02x} at {error.start}")
    except RecursionError:
        return Broken("JSON", "brackets nested too deeply")
    except ValueError as error:
        return Broken("JSON", f"{error}: {line[:40]!r}"[:160])
