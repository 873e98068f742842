"""What a teacher tells of the rows of a distillation: computed for each step, or once for all and kept on the disk, or as it stands in the rows.

A row that was taught has, of each of its targets, `teacher_tokens` and `teacher_top_logprobs` [N, K], the teacher's likeliest tokens, and `teacher_rest` [N], the
log of all others' mass, among its `arrays`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np

from workbench.data.packing import Row, targets
from workbench.engine import hf, parallel, weight_files
from workbench.engine.batch import Metrics
from workbench.engine.step import Policy
from workbench.models.connections import connect_roles, traffic
from workbench.models.protocol import Surroundings
from workbench.models.roles.teacher import Telling, check_vocabulary
from workbench.processes.rank import Rank
from workbench.serve.client import Client
from workbench.settings import placement
from workbench.settings.sources import cache_root
from workbench.views.text import size

PART = 256
"""Rows whose answers are written together: what is lost at most of a cache that is interrupted."""
TOKENS, LOGPROBS, REST = NAMES = ("teacher_tokens", "teacher_top_logprobs", "teacher_rest")


class _Teacher(Protocol):
    @property
    def source(self) -> str | None: ...
    @property
    def computed(self) -> Literal["each_step", "once", "in_rows"]: ...
    @property
    def top_k(self) -> int: ...


class _Taught(Protocol):
    """Settings of an algorithm that learns from a teacher what it says of the data."""

    @property
    def teacher(self) -> _Teacher: ...
    @property
    def temperature(self) -> float: ...


class Teaching:
    """The teacher of a run's rows, on one rank: every rank makes the same calls."""

    def __init__(self, rank: Rank, policy: Policy):
        self._rank, self._policy = rank, policy
        settings = cast(_Taught, rank.spec.algorithm)
        self._teacher, self._temperature = settings.teacher, settings.temperature
        self._vocabulary: int = policy.hf_config.vocab_size
        self._model: Telling | None = None
        self._seconds = 0.0

    def before(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that the steps learn from, with what is known of them before the first step.

        Raises:
            ValueError: the rows have another vocabulary or tell too little, the teacher has another, or its cache has no room on the disk.
        """
        if self._teacher.computed == "each_step":
            self._load()
            return list(rows)
        return self._taught(rows, "train")

    def held_out(self, rows: Sequence[Row]) -> list[Row]:
        """The rows, taught. Raises as `before`, which is called first."""
        taught = self._taught(rows, "validation")
        self.traffic()  # what was asked so far belongs to no step
        if self._teacher.computed == "once":
            self._model = None  # nothing more is asked of it
        return taught

    def fingerprint(self) -> str | None:
        """Names the teacher's weights; None where no model is asked."""
        return (
            None if self._teacher.computed == "in_rows" else self._rank.made_by_first(lambda: self._weights(self._source), "looking at the teacher")
        )

    @staticmethod
    def _weights(source: str) -> str:
        return weight_files.fingerprint(hf.local_directory(source))

    def of_step(self, rows: Sequence[Row]) -> list[Row]:
        """A step's rows, taught."""
        if self._teacher.computed != "each_step":
            return list(rows)
        began = time.perf_counter()
        taught = self._computed(rows)
        self._seconds += time.perf_counter() - began
        return taught

    def seconds(self) -> float:
        """What `of_step` took since it was asked last."""
        taken, self._seconds = self._seconds, 0.0
        return taken

    def traffic(self) -> Metrics:
        """What asking the teacher's server cost since it was asked last; nothing where it is in these processes. All ranks call it."""
        return traffic([self._model]) if self._model and self._server else {}

    def _taught(self, rows: Sequence[Row], part: str) -> list[Row]:
        if not rows:
            return []
        if self._teacher.computed == "in_rows":
            return self._as_they_stand(rows)
        return self._cached(rows, part) if self._teacher.computed == "once" else self._computed(rows, part)

    def _computed(self, rows: Sequence[Row], part: str = "") -> list[Row]:
        columns = self._ask(rows, part)
        return [dataclasses.replace(row, arrays={**row.arrays, **{name: columns[name][i] for name in NAMES}}) for i, row in enumerate(rows)]

    def _ask(self, rows: Sequence[Row], part: str = "") -> dict[str, list[np.ndarray]]:
        progress = self._rank.progress(f"the teacher's probabilities ({part})") if part else None
        columns = self._load().columns(rows, progress)
        self._check_tokens(max(int(tokens.max(initial=0)) for tokens in columns[TOKENS]))
        return columns

    def _load(self) -> Telling:
        """The teacher, here or behind its server. Raises ValueError where its tokens are not the policy's."""
        if self._model is None:
            spec, rank = self._rank.spec, self._rank
            rank.emit("phase", message="asking for the teacher's server" if self._server else "loading the teacher")
            around = Surroundings(rank.run, spec, spec.model.layout, rank.directory, self._policy)
            directory = self._directory()
            if self._server:  # else it looks itself
                check_vocabulary(self._source, directory, rank.directory)
            (connected,) = connect_roles(("teacher",), around, lambda server: Client(rank.run.path, server)).values()
            self._model = cast(Telling, connected)
        return self._model

    @property
    def _server(self) -> str | None:
        return placement.server_of("teacher", self._rank.spec.algorithm)

    @property
    def _source(self) -> str:
        if self._teacher.source is None:
            raise ValueError("algorithm.teacher.source: distill learns from a teacher: name its directory or hub id")
        return self._teacher.source

    def _directory(self) -> Path:
        return self._rank.made_by_first(lambda: hf.local_directory(self._source), "fetching the teacher")

    def _check_tokens(self, highest: int) -> None:
        if highest >= self._vocabulary:
            where = "the rows" if self._teacher.computed == "in_rows" else f"algorithm.teacher.source={self._teacher.source}"
            raise ValueError(f"{where}: the teacher names token {highest:,}, and the policy's vocabulary has {self._vocabulary:,}: it is another one")

    # --- in the rows

    def _as_they_stand(self, rows: Sequence[Row]) -> list[Row]:
        fewest, most = (pick(row.arrays[TOKENS].shape[1] for row in rows) for pick in (min, max))
        if fewest < most and fewest < self._teacher.top_k:
            raise ValueError(f"the rows tell {fewest} to {most} of the teacher's tokens: set algorithm.teacher.top_k={fewest}, of all the same")
        return [self._as_it_stands(row) for row in rows]

    def _as_it_stands(self, row: Row) -> Row:
        """The row with at most `top_k` of the tokens that it tells; the others' mass is added to the rest."""
        tokens_NK, logprobs_NK, rest_N = (row.arrays[name] for name in NAMES)
        self._check_tokens(int(tokens_NK.max(initial=0)))
        count, kept = tokens_NK.shape[1], min(tokens_NK.shape[1], self._teacher.top_k)
        if count == self._vocabulary:
            rest_N = np.full_like(rest_N, -np.inf)
        if kept < count:
            rest_N = np.logaddexp(rest_N, np.logaddexp.reduce(logprobs_NK[:, kept:], axis=1))
        return dataclasses.replace(row, arrays={TOKENS: tokens_NK[:, :kept], LOGPROBS: logprobs_NK[:, :kept], REST: rest_N.astype(np.float32)})

    # --- once, kept on the disk

    def _cached(self, rows: Sequence[Row], part: str) -> list[Row]:
        """The rows with what the disk has of them, once it has all."""
        count = [len(targets(row)) for row in rows]
        path = cache_root() / "teacher" / f"{self._key(rows)}.bin"
        if not parallel.from_first(path.is_file()):
            self._fill(path, rows, count, part)
        table = np.memmap(path, dtype=record(self._teacher.top_k), mode="r")
        if len(table) != sum(count):
            raise ValueError(f"{path} holds {len(table):,} tokens where the rows have {sum(count):,}: delete it, and it is computed again")
        ends = np.cumsum(count)
        spans = [slice(end - n, end) for end, n in zip(ends.tolist(), count, strict=True)]
        return [
            dataclasses.replace(row, arrays={name: np.asarray(table[name][span]) for name in NAMES}) for row, span in zip(rows, spans, strict=True)
        ]

    def _key(self, rows: Sequence[Row]) -> str:
        """Names what is computed: of which teacher, how, and of which rows."""
        teacher = weight_files.digest(self._directory())
        key = hashlib.sha256(f"{teacher} {self._rank.spec.model.precision} {self._teacher.top_k} {self._temperature!r}".encode())
        for row in rows:
            key.update(repr((list(row.prefix), [list(b) for b in row.branches], list(row.learn))).encode())
        return key.hexdigest()[:24]

    def _fill(self, path: Path, rows: Sequence[Row], count: Sequence[int], part: str) -> None:
        """Compute what the file lacks, a part after the other; what an interrupted run has written of it is kept."""
        item, partial = record(self._teacher.top_k).itemsize, path.with_suffix(".partial")
        self._rank.made_by_first(lambda: self._announce(partial, sum(count), item, part), "making room for the teacher's probabilities")
        there = parallel.from_first(partial.stat().st_size if parallel.rank() == 0 else 0)
        progress = self._rank.progress(f"the teacher's probabilities ({part})")
        for start in range(0, len(rows), PART):
            end = min(start + PART, len(rows))
            before, after = sum(count[:start]) * item, sum(count[:end]) * item
            if after > there:
                columns = self._ask(rows[start:end])
                if parallel.rank() == 0:
                    _write(partial, before, columns, self._teacher.top_k)
            progress(end, len(rows))
        self._rank.made_by_first(lambda: _finish(partial, path, sum(count) * item), "saving the teacher's probabilities")

    def _announce(self, partial: Path, tokens: int, item: int, part: str) -> None:
        """Say how large the file becomes. Raises ValueError: the disk has no room for it."""
        partial.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
        missing, free = tokens * item - partial.stat().st_size, shutil.disk_usage(partial.parent).free
        said = f"{size(tokens * item)} ({part}: {tokens:,} tokens x {self._teacher.top_k} of the teacher's likeliest)"
        if missing > free:
            raise ValueError(
                f"the teacher's probabilities take {said}, and {partial.parent} has {size(free)} left: set WORKBENCH_CACHE to a larger disk, a smaller"
                " algorithm.teacher.top_k, or algorithm.teacher.computed=each_step"
            )
        self._rank.emit("phase", message=f"the teacher's probabilities will take {said} in {partial.parent}")


def record(top_k: int) -> np.dtype[np.void]:
    """What the file has of each token."""
    return np.dtype([(TOKENS, "<i4", (top_k,)), (LOGPROBS, "<f4", (top_k,)), (REST, "<f4")])


def _write(path: Path, at: int, columns: dict[str, list[np.ndarray]], top_k: int) -> None:
    """Put a part where it belongs, on the disk before anything comes after it."""
    table = np.empty(sum(map(len, columns[REST])), record(top_k))
    for name in NAMES:
        table[name] = np.concatenate(columns[name])
    with path.open("r+b") as file:
        file.seek(at)
        file.write(table.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _finish(partial: Path, path: Path, length: int) -> None:
    """Give the whole file its name, unless another run that computed the same was first."""
    with contextlib.suppress(FileNotFoundError):
        os.truncate(partial, length)
        partial.replace(path)
    assert path.is_file(), path
