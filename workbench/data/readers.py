"""Read rows from a file or a hub: every bad row is told with its place, what was expected and what was found."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.data.formats import SCHEMAS, Malformed, detect, parse
from workbench.data.rows import TextRow
from workbench.settings.sources import DATA_ENDINGS, DataError, locate

Kind = Literal["preference", "conversation", "rated", "unpaired", "prompt"]
MAX_LINE_BYTES = 8 << 20
_SHOWN = 5


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
    """What a source gave."""

    rows: list[TextRow]
    bad: list[BadRow]
    format: str


@dataclass(frozen=True)
class _Broken:
    """A raw row that could not even be decoded."""

    expected: str
    found: str


def read(source: str, kind: Kind, format: str = "auto", on_bad_row: str = "error", limit: int | None = None) -> Rows:
    """All rows of a source, or of its first `limit`.

    Args:
        source: a .jsonl, .jsonl.gz or .parquet file (relative to the working directory, else to the repository), or a Hugging Face
            dataset id, `name`, `name:split` or `name:configuration:split`.
        format: a key of `SCHEMAS`, or auto: as the first good row's keys say.
        on_bad_row: `error` refuses the source when any row is bad; `skip` leaves those out and lists them.

    Raises:
        DataError: there is no such source, it has bad rows and `on_bad_row` is error, or no good row at all.
    """
    rows: list[TextRow] = []
    bad: list[BadRow] = []
    name, taken = format, 0
    for where, raw in _raw_rows(source):
        if limit is not None and taken >= limit:
            break
        taken += 1
        try:
            if isinstance(raw, _Broken):
                raise Malformed(raw.expected, raw.found)
            if name == "auto" and isinstance(raw, dict):
                name = detect(raw)
            rows += parse(raw, name if name != "auto" else "preference", kind, where)
        except Malformed as error:
            bad.append(BadRow(where, *error.args))
    if bad and (on_bad_row == "error" or not rows):
        listed = "\n".join(f"  {row}" for row in bad[:_SHOWN])
        more = f"\n  … and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        advice = "mend them, or leave them out with data.on_bad_row=skip" if rows else f"no row is good; formats: {', '.join(SCHEMAS)}"
        raise DataError(f"{source}: {len(bad)} of {taken} rows are malformed ({advice}):\n{listed}{more}")
    if not rows:
        raise DataError(f"{source}: there are no rows in it")
    return Rows(rows, bad, name)


def _raw_rows(source: str) -> Iterator[tuple[str, object]]:
    path = locate(source)
    if path is None:
        return _hub_rows(source)
    if path.name.endswith(".parquet"):
        return _parquet_rows(path)
    if not path.name.endswith(DATA_ENDINGS):
        raise DataError(f"{source}: a data file ends in one of {', '.join(DATA_ENDINGS)}")
    return _json_rows(path)


def _json_rows(path: Path) -> Iterator[tuple[str, object]]:
    number = 0
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
        try:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                where = f"{path}:{number}"
                if len(line) > MAX_LINE_BYTES:
                    size = len(line)
                    while not line.endswith(b"\n") and (line := file.readline(MAX_LINE_BYTES)):
                        size += len(line)
                    yield where, _Broken(f"a line of at most {MAX_LINE_BYTES >> 20} MiB", f"{size / 2**20:.1f} MiB")
                elif line.strip(b"\xef\xbb\xbf \t\r\n"):
                    yield where, _decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield f"{path}:{number + 1}", _Broken("a whole gzip file", f"{type(error).__name__}: {error}")


def _decode(line: bytes) -> object:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        return _Broken("UTF-8 text", f"byte 0x{line[error.start]:02x} at {error.start}")
    except RecursionError:
        return _Broken("JSON", "brackets nested too deeply")
    except ValueError as error:
        return _Broken("JSON", f"{error}: {line[:40]!r}"[:160])


def _parquet_rows(path: Path) -> Iterator[tuple[str, object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", row
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        yield f"{path}:{number + 1}", _Broken("a whole parquet file", f"{type(error).__name__}: {error}"[:160])


def _hub_rows(source: str) -> Iterator[tuple[str, object]]:
    import datasets

    name, *parts = source.split(":")
    split = parts[-1] if parts else "train"
    configuration = parts[0] if len(parts) == 2 else None
    try:
        rows = datasets.load_dataset(name, configuration, split=split, streaming=True)
        for number, row in enumerate(rows, 1):
            yield f"{name}:{split}:{number}", row
    except (OSError, ValueError) as error:
        raise DataError(f"{source}: neither a file nor a Hugging Face dataset that can be reached ({type(error).__name__}: {error})") from error
