"""Decodes Parquet files and data sets of a hub in a process of its own, with a limit on memory and on processor time a batch.

`python -m workbench.data.decoding_process` takes a `Job` as JSON on standard input, and prints one line a row, each with a mark in front: `+` a
row as JSON, `-` one that could not be read, as [expected, found]; `!` why the source cannot be read, and `=` at the end. A value that JSON has
not (a date, bytes) is sent as `{"$not_json": [type, text]}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Literal

from pydantic import BaseModel

from workbench.data import limits
from workbench.data.rows import Unreadable

if TYPE_CHECKING:
    import pyarrow as pa

NOT_JSON = "$not_json"
_BATCH_BYTES = 16 << 20
_STREAM_BYTES = 1 << 20


class Job(BaseModel):
    """What to decode: a Parquet file's path, or a hub's (name, configuration, split)."""

    kind: Literal["parquet", "hub"]
    source: str
    configuration: str | None = None
    split: str = "train"
    row_bytes: int
    memory_bytes: int


def main() -> int:
    job = Job.model_validate_json(sys.stdin.buffer.read())
    limits.of_memory(job.memory_bytes)
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # libraries that print must not write among the rows
    error = _write(_parquet(job) if job.kind == "parquet" else _hub(job), job, out)
    out.write(error or b"=\n")
    out.flush()
    return 0


def _write(rows: Iterator[dict[str, object]], job: Job, out: BinaryIO) -> bytes:
    """The rows as lines; returns the line that tells why they end early, or nothing."""
    import pyarrow as pa

    try:
        for row in rows:
            line = json.dumps(row, ensure_ascii=False, default=_tagged).encode(errors="surrogatepass")
            if len(line) > job.row_bytes:
                expected = f"a row of at most {job.row_bytes / 2**20:g} MiB (data.max_row_mb)"
                out.write(b"-" + json.dumps([expected, f"{len(line) / 2**20:.1f} MiB"]).encode() + b"\n")
            else:
                out.write(b"+" + line + b"\n")
    except MemoryError:
        return _encoded("!", f"its decoding takes more than {job.memory_bytes / 2**30:g} GiB of memory; raise data.reader_memory_gb if you trust it")
    except (pa.ArrowException, OSError, ValueError, RecursionError, OverflowError, KeyError) as error:
        message = f"{type(error).__name__}: {error}"
        if job.kind == "parquet":
            return b"-" + json.dumps(["a whole parquet file", message[:160]]).encode() + b"\n=\n"
        return _encoded("!", f"neither a file nor a Hugging Face dataset that can be reached ({message[:500]})")
    return b""


def _encoded(mark: str, message: str) -> bytes:
    return mark.encode() + json.dumps(message).encode() + b"\n"


def _parquet(job: Job) -> Iterator[dict[str, object]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(job.source, buffer_size=_STREAM_BYTES, pre_buffer=False)
    names = file.schema_arrow.names
    if doubled := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two columns are named {doubled[0]!r}")
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    average = sum(group.total_byte_size for group in groups) // max(1, file.metadata.num_rows)
    limits.processor_time(limits.BATCH_CPU_S)
    for batch in file.iter_batches(batch_size=min(4096, max(16, _BATCH_BYTES // max(1, average)))):
        for start in range(0, batch.num_rows, 16):
            yield from _rows(batch.slice(start, 16))
        limits.processor_time(limits.BATCH_CPU_S)


def _rows(batch: pa.RecordBatch) -> list[dict[str, object]]:
    """The rows of a batch. A value that Python has not (a far date, one of an unknown time zone, broken UTF-8) spoils itself alone."""
    try:
        return batch.to_pylist()
    except (OverflowError, KeyError, ValueError):
        return [{name: _cell(batch.column(name), i) for name in batch.schema.names} for i in range(batch.num_rows)]


def _cell(column: pa.Array, i: int) -> object:
    try:
        return column[i].as_py()
    except (OverflowError, KeyError, ValueError) as error:
        return Unreadable(str(column.type), f"{type(error).__name__}: {error}")


def _hub(job: Job) -> Iterator[dict[str, object]]:
    import datasets

    limits.processor_time(limits.BATCH_CPU_S)
    for number, row in enumerate(datasets.load_dataset(job.source, job.configuration, split=job.split, streaming=True)):
        if number % 64 == 0:
            limits.processor_time(limits.BATCH_CPU_S)
        yield row


def _tagged(value: object) -> dict[str, list[str]]:
    if isinstance(value, Unreadable):
        return {NOT_JSON: [value.type, value.reason, "unreadable"]}
    return {NOT_JSON: [type(value).__name__, str(value)]}


if __name__ == "__main__":
    sys.exit(main())
