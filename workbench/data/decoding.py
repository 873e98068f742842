"""Rows of Parquet files and of a hub's data sets, decoded by a process of its own (`decoding_process`): what is in them may crash it or fill its memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from workbench.data.growth import Growth
from workbench.data.limits import BATCH_CPU_S, ROW_BYTES, Limits, ended_by
from workbench.data.rows import NotJson, Unreadable
from workbench.settings.sources import DataError

_NOT_JSON = "$not_json"


@dataclass(frozen=True)
class Broken:
    """A raw row that could not even be decoded."""

    expected: str
    found: str


def parquet_rows(path: Path, limits: Limits) -> Generator[tuple[str, object]]:
    """The rows of a file, with their places; the end of a damaged one is a `Broken`.

    Raises:
        DataError: it goes beyond the limits.
    """
    job = {"kind": "parquet", "source": str(path.absolute())}
    size = path.stat().st_size
    growth = Growth(limits.expansion)
    for number, (row, taken) in enumerate(_decoded(job, limits, str(path)), 1):
        growth.check(taken + ROW_BYTES, size, f"{path}:{number}")
        yield f"{path}:{number}", row


def hub_rows(name: str, configuration: str | None, split: str, limits: Limits) -> Generator[tuple[str, object]]:
    """The rows of a data set of a hub, as they come.

    Raises:
        DataError: it cannot be reached, or goes beyond the limits.
    """
    job = {"kind": "hub", "source": name, "configuration": configuration, "split": split}
    source = ":".join(part for part in (name, configuration, split) if part)
    for number, (row, _) in enumerate(_decoded(job, limits, source), 1):
        yield f"{name}:{split}:{number}", row


def _decoded(job: Mapping[str, str | None], limits: Limits, source: str) -> Generator[tuple[object, int]]:
    """(row, bytes of its text) of each row; the process ends with the reading."""
    asked = json.dumps({**job, "row_bytes": limits.row_bytes, "memory_bytes": limits.memory_bytes}).encode()
    command = [sys.executable, "-m", "workbench.data.decoding_process"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(asked)
            process.stdin.close()
            number = 0
            while (line := process.stdout.readline())[:1] in (b"+", b"-"):
                number += 1
                yield _row(line), len(line)
            if line[:1] == b"!":
                raise DataError(f"{source}: {json.loads(line[1:])}")
            if line != b"=\n":
                raise DataError(f"{source}: decoding it stopped after {number:,} rows: {_why(process, errors, limits)}")
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def _row(line: bytes) -> object:
    text = line[1:].decode(errors="surrogatepass")
    if line.startswith(b"-"):
        return Broken(*json.loads(text))
    return json.loads(text, object_hook=_untagged) if _NOT_JSON in text else json.loads(text)


def _untagged(value: dict[str, object]) -> object:
    tagged = value.get(_NOT_JSON) if len(value) == 1 else None
    if not isinstance(tagged, list) or len(tagged) not in (2, 3):
        return value
    return (NotJson if len(tagged) == 2 else Unreadable)(str(tagged[0]), str(tagged[1]))


def _why(process: subprocess.Popen[bytes], errors: IO[bytes], limits: Limits) -> str:
    ended = ended_by(process.wait(), BATCH_CPU_S, limits.memory_bytes)
    errors.seek(0)
    last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    return f"{ended} {last[:300]}".strip()
