"""The files of rollouts: which there are, which of them can be read, and the database that reads them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from workbench.rundir import opening
from workbench.rundir.opening import Unreadable

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from workbench.rundir.store import RunDir

TEXTS = ("prompt_id", "prompt", "response", "finish_reason")
COUNTS = ("step", "rollout", "sample", "prompt_tokens", "response_tokens", "weights_version")
PER_TOKEN = ("logprobs", "rollout_logprobs", "reference_logprobs", "kl", "entropy", "values", "advantages", "returns")
"""One value a token of the response; null where the algorithm has none. `logprobs` are the trainer's, `rollout_logprobs` the engine's."""
HEAVY = ("pieces", "tokens", *PER_TOKEN)
COMPONENT = "reward/"
DIGITS = 9
"""Of a step's number, at most."""
T = TypeVar("T")


def folder(run: RunDir) -> Path:
    return run.path / "rollouts"


def schema(components: Sequence[str] = ()) -> pa.Schema:
    """The columns of a file whose records have these `reward/<component>`."""
    import pyarrow as pa

    return pa.schema(
        [
            *((name, pa.int32()) for name in COUNTS),
            *((name, pa.string()) for name in TEXTS),
            ("pieces", pa.list_(pa.string())),
            ("tokens", pa.list_(pa.int32())),
            *((name, pa.list_(pa.float32())) for name in PER_TOKEN),
            ("kl_sum", pa.float64()),
            *((name, pa.float64()) for name in ("reward", *components)),
        ]
    )


@dataclass(frozen=True)
class File:
    """One state of one file: a file that is replaced is another."""

    path: Path
    stamp: tuple[int, int, int] | None
    """None for a file that is not opened."""

    @property
    def step(self) -> int:
        return int(self.path.stem)

    @property
    def valid(self) -> bool:
        return self.stamp is not None and self not in _unreadable and components_in(self) is not None


_unreadable: set[File] = set()
"""Files whose end is valid and whose pages are not."""


def files_of(run: RunDir) -> list[File]:
    """The files by step, damaged ones too."""
    return sorted(_listed(folder(run)), key=lambda file: file.step)


def _listed(directory: Path) -> Iterator[File]:
    try:
        names = opening.names(directory)
    except Unreadable:  # `damaged` names it
        return
    for name in names:
        stem, _, suffix = name.partition(".")
        if suffix == "parquet" and stem.isascii() and stem.isdigit() and len(stem) <= DIGITS:
            try:
                status = opening.stat(directory / name)
            except Unreadable:  # a link, or somebody else's: named as damaged
                yield File(directory / name, None)
            except FileNotFoundError:
                continue
            else:
                yield File(directory / name, (status.st_ino, status.st_mtime_ns, status.st_size))


def components_in(file: File) -> tuple[str, ...] | None:
    """The reward's components in a file; None where it is no rollout file, its end is damaged, or it cannot be opened now."""
    try:
        return _components_of(file)
    except OSError:
        return None


@functools.lru_cache(maxsize=100_000)
def _components_of(file: File) -> tuple[str, ...] | None:
    """As `_components`, once and for all. Raises OSError, with the system's number, where the next look may tell more."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stored = pq.read_schema(file.path)
    except pa.ArrowException:
        return None
    except OSError as error:
        if error.errno is not None:
            raise
        return None
    if not all(field.name in stored.names and stored.field(field.name).type == field.type for field in schema()):
        return None
    return tuple(name for name in stored.names if name.startswith(COMPONENT))


def read_files(run: RunDir, first_step: int, last_step: int, read: Callable[[duckdb.DuckDBPyConnection, list[str]], T]) -> T | None:
    """What `read(database, files)` makes of the valid files of some steps; None where there are none. Damaged ones are found out and left out."""
    import duckdb

    while files := [file for file in files_of(run) if first_step <= file.step <= last_step and file.valid]:
        try:
            return read(database().cursor(), [str(file.path) for file in files])
        except duckdb.Error:
            broken = [file for file in files if not _whole(file)]
            changed = set(files) - set(files_of(run))
            if not broken and not changed:
                raise
            _unreadable.update(broken)
    return None


def _whole(file: File) -> bool:
    """Whether every page of a file can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_table(file.path, page_checksum_verification=True)
    except pa.ArrowException:
        return False
    except OSError as error:
        return error.errno is not None  # the system's word, not the file's
    return True


@functools.cache
def database() -> duckdb.DuckDBPyConnection:
    """One in-memory database a process; each reader takes a cursor. It fetches no extensions, and caches no file that may be replaced."""
    import duckdb

    config = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "enable_external_file_cache": "false"}
    return duckdb.connect(":memory:", config={**config, "threads": str(min(4, os.cpu_count() or 1))})
