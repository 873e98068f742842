"""The rollout files of a run, `rollouts/<step>.parquet`: every answer of a step with all that was computed of it. DuckDB reads them.

A file appears whole and stays as it is until a resumed run samples its step again. A file that cannot be read is left out and named by `damaged`.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

from workbench.rundir import opening
from workbench.rundir.files import replacing
from workbench.rundir.opening import Unreadable
from workbench.rundir.rollout_files import (
    COMPONENT,
    COUNTS,
    HEAVY,
    TEXTS,
    File,
    components_in,
    database,
    files_of,
    folder,
    read_files,
    schema,
)

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

    from workbench.rundir.store import RunDir

LAST = 2**31 - 1
SAMPLED_BY = "sampled_by"


class Rollout(TypedDict):
    """A row of a file, with its arrays; besides there is a number for each `reward/<component>`."""

    step: int
    rollout: int
    sample: int
    prompt_tokens: int
    response_tokens: int
    weights_version: int
    prompt_id: str
    prompt: str
    response: str
    finish_reason: str
    pieces: list[str]
    tokens: list[int]
    logprobs: list[float] | None
    rollout_logprobs: list[float] | None
    reference_logprobs: list[float] | None
    kl: list[float] | None
    entropy: list[float] | None
    values: list[float] | None
    advantages: list[float] | None
    returns: list[float] | None
    kl_sum: float | None
    reward: float | None


@dataclass(frozen=True)
class Query:
    """Which rollouts of a run, in which order. Empty texts and None find all, a limit of the reward finite ones; `search` looks in prompt and response, in any case."""

    search: str = ""
    first_step: int = 0
    last_step: int = LAST
    finish_reason: str = ""
    prompt_id: str = ""
    min_reward: float | None = None
    max_reward: float | None = None
    sort: str = "step"
    descending: bool = True
    offset: int = 0
    limit: int = 50


def write(run: RunDir, step: int, records: Sequence[Mapping[str, object]], sampled_by: str = "") -> Path:
    """Put a step's file in place, whole, instead of an earlier attempt's. A rollout's number is its place in `records`.

    Args:
        sampled_by: names the weights behind all of them, for `sampled_by`.

    Raises:
        ValueError: a column that there is not, a missing one, or an array that has not one value a token.
        OSError: the disk is full; an earlier file stays.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    components = sorted({name for record in records for name in record if name.startswith(COMPONENT)})
    shape = schema(components)
    rows = [_row(step, number, record, shape.names) for number, record in enumerate(records)]
    named = shape.with_metadata({SAMPLED_BY: sampled_by}) if sampled_by else shape
    table = pa.table([pa.array([row.get(field.name) for row in rows], field.type) for field in shape], schema=named)
    opening.make_folder(folder(run))
    final = folder(run) / f"{step}.parquet"
    with replacing(final) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    opening.sync_folder(final.parent)
    return final


def sampled_by(run: RunDir, step: int) -> str:
    """The name that `write` was given for the weights behind a step's rollouts; empty where it was given none, and where there is no readable file."""
    import pyarrow.parquet as pq

    file = next((file for file in files_of(run) if file.step == step and file.valid), None)
    return (pq.read_schema(file.path).metadata or {}).get(SAMPLED_BY.encode(), b"").decode() if file else ""


def steps(run: RunDir) -> list[int]:
    """The steps that have a readable file, ascending."""
    return [file.step for file in files_of(run) if file.valid]


def damaged(run: RunDir) -> list[Path]:
    """The files that cannot be read, by step; the folder, where that cannot."""
    try:
        opening.names(folder(run))
    except Unreadable as error:
        return [error.path]
    return [file.path for file in files_of(run) if not file.valid]


def version(run: RunDir) -> int:
    """Another number whenever a file came, went or was replaced."""
    return hash(tuple(file for file in files_of(run) if file.valid))


def columns(run: RunDir) -> list[str]:
    """The columns of `page`: what it can sort by."""
    components = sorted({name for file in files_of(run) if file.valid for name in components_in(file) or ()})
    return [name for name in schema(components).names if name not in HEAVY]


def page(run: RunDir, query: Query) -> tuple[pd.DataFrame, int]:
    """A page of rollouts without their arrays, and how many there are in all.

    Raises:
        ValueError: a column that cannot be sorted by.
    """
    where = [
        "(? = '' OR contains(lower(prompt), lower(?)) OR contains(lower(response), lower(?)))",
        "? IN ('', finish_reason) AND ? IN ('', prompt_id)",
        "(? IS NULL OR (reward >= ? AND isfinite(reward))) AND (? IS NULL OR (reward <= ? AND isfinite(reward)))",
    ]
    # Not isnan: DuckDB 2.0.0 takes it for false in Parquet files, whose statistics say nothing of NaN.
    low, high = query.min_reward, query.max_reward
    values = [*[query.search] * 3, query.finish_reason, query.prompt_id, low, low, high, high]
    return _select(run, query, " AND ".join(where), values)


def one(run: RunDir, step: int, rollout: int) -> Rollout | None:
    """A rollout with its arrays; None where there is none."""

    def read(database: duckdb.DuckDBPyConnection, files: list[str]) -> list[Rollout]:
        table = database.sql("SELECT * FROM read_parquet(?) WHERE rollout = ?", params=[files, rollout]).to_arrow_table()
        return cast(list[Rollout], table.to_pylist())

    frame = read_files(run, step, step, read)
    return frame[0] if frame else None


def whole_step(run: RunDir, step: int) -> list[Rollout]:
    """A step's rollouts with their arrays, by number.

    Raises:
        ValueError: there is no file of this step, or it is damaged.
    """

    def read(database: duckdb.DuckDBPyConnection, files: list[str]) -> list[Rollout]:
        table = database.sql("SELECT * FROM read_parquet(?) ORDER BY rollout", params=[files]).to_arrow_table()
        return cast(list[Rollout], table.to_pylist())

    frame = read_files(run, step, step, read)
    if frame is None:
        raise ValueError(f"{folder(run) / f'{step}.parquet'} is missing or damaged")
    return frame


def follow(run: RunDir, prompt_id: str) -> pd.DataFrame:
    """All answers to one prompt over the steps, ascending, without arrays."""
    return page(run, Query(prompt_id=prompt_id, descending=False, limit=LAST))[0]


def of_step(run: RunDir, step: int) -> pd.DataFrame:
    """A step's rollouts without their arrays, by number."""
    return page(run, Query(first_step=step, last_step=step, sort="rollout", descending=False, limit=LAST))[0]


def query(run: RunDir, text: str, conditions: Sequence[str] = ()) -> pd.DataFrame:
    """What a SELECT gives; its table `rollouts` has every rollout of the readable files that fulfils the conditions, with arrays.

    Without files the table is empty.

    Raises:
        ValueError: DuckDB refuses the text, in its own words; or it is no SELECT.
    """
    import duckdb

    def read(database: duckdb.DuckDBPyConnection, files: list[str]) -> pd.DataFrame:
        return picked(database.read_parquet(files, union_by_name=True))

    def picked(table: duckdb.DuckDBPyRelation) -> pd.DataFrame:
        for condition in conditions:
            table = table.filter(condition)
        answer = table.query("rollouts", text)
        if answer is None:
            raise ValueError(f"expected a SELECT, got {text[:80]!r}")
        return answer.df()

    try:
        frame = read_files(run, 0, LAST, read)
        return frame if frame is not None else picked(database().cursor().from_arrow(schema().empty_table()))
    except duckdb.Error as error:
        raise ValueError(str(error)) from None


def shared(run: RunDir, step: int) -> dict[int, int]:
    """The other steps that answered prompts of this one, ascending, with how many prompts."""
    file = str(folder(run) / f"{step}.parquet")
    text = """
SELECT step, count(DISTINCT prompt_id) FROM read_parquet(?, union_by_name = true)
WHERE prompt_id IN (SELECT prompt_id FROM read_parquet(?)) AND step <> ? GROUP BY step ORDER BY step"""
    rows = read_files(run, 0, LAST, lambda database, files: database.execute(text, [files, file, step]).fetchall() if file in files else [])
    return dict(rows or [])


def summary(run: RunDir) -> pd.DataFrame:
    """One row a step: rollouts, prompts, rewarded (rollouts that have a reward), reward_mean, reward_std, length_mean (tokens), truncated (share), kl_mean (nats an answer), weights_version.

    What is NaN or infinite is left out of the means. A file is summarised once.
    """
    import pandas as pd

    files = [file for file in files_of(run) if file.valid]
    with _summaries_lock:
        known = {file: _summaries[file] for file in files if file in _summaries}
    missing = {file.step: file for file in files if file not in known}
    if missing:
        frame = read_files(run, min(missing), max(missing), lambda database, names: database.execute(_SUMMARY, [names]).df())
        rows = [] if frame is None else frame.to_dict("records")
        fresh = {missing[row["step"]]: row for row in rows if row["step"] in missing}
        with _summaries_lock:
            _summaries.update(fresh)
            while len(_summaries) > KEPT_SUMMARIES:
                _summaries.pop(next(iter(_summaries)))
        known |= fresh
    return pd.DataFrame([known[file] for file in files if file in known], columns=pd.Index(SUMMARY))


SUMMARY = ("step", "rollouts", "prompts", "rewarded", "reward_mean", "reward_std", "length_mean", "truncated", "kl_mean", "weights_version")
KEPT_SUMMARIES = 100_000
_SUMMARY = """
SELECT step, count(*) AS rollouts, count(DISTINCT prompt_id) AS prompts, count(reward) AS rewarded,
       avg(reward) FILTER (isfinite(reward)) AS reward_mean, stddev_pop(reward) FILTER (isfinite(reward)) AS reward_std,
       avg(response_tokens) AS length_mean, avg((finish_reason = 'length')::INT) AS truncated,
       avg(kl_sum) FILTER (isfinite(kl_sum)) AS kl_mean, max(weights_version) AS weights_version
FROM read_parquet(?, union_by_name = true) GROUP BY step ORDER BY step"""


_summaries: dict[File, dict[Hashable, object]] = {}
_summaries_lock = threading.Lock()


def _row(step: int, number: int, record: Mapping[str, object], names: Sequence[str]) -> dict[str, object]:
    if unknown := [name for name in record if name not in names]:
        raise ValueError(f"rollout {number} of step {step}: no column {', '.join(unknown)}; there are {', '.join(names)}, and {COMPONENT}<component>")
    given: dict[str, object] = {"step": step, "rollout": number, "kl_sum": None}
    if missing := [name for name in (*COUNTS, *TEXTS, "pieces", "tokens") if name not in given and record.get(name) is None]:
        raise ValueError(f"rollout {number} of step {step} lacks {', '.join(missing)}")
    for name in HEAVY:
        values = cast(Sequence[float] | None, record.get(name))
        if values is not None and len(values) != record["response_tokens"]:
            raise ValueError(f"rollout {number} of step {step}: {len(values)} {name} for {record['response_tokens']} response tokens")
    if (kl := cast(Sequence[float] | None, record.get("kl"))) is not None:
        given["kl_sum"] = float(sum(kl))
    return {**record, **given}


def _select(run: RunDir, query: Query, where: str, values: list[object]) -> tuple[pd.DataFrame, int]:
    import pandas as pd

    names = columns(run)
    if query.sort not in names:
        raise ValueError(f"rollouts are sorted by one of {', '.join(names)}, got {query.sort!r}")
    finite = query.sort in ("reward", "kl_sum") or query.sort.startswith(COMPONENT)
    key = f"CASE WHEN isfinite({_quoted(query.sort)}) THEN {_quoted(query.sort)} END" if finite else _quoted(query.sort)
    direction = f"{'DESC' if query.descending else 'ASC'} NULLS LAST"
    ties = ", step DESC, rollout" if query.sort != "step" else ", rollout"

    def read(database: duckdb.DuckDBPyConnection, files: list[str]) -> tuple[pd.DataFrame, int]:
        source = "read_parquet(?, union_by_name = true)"
        total = database.execute(f"SELECT count(*) FROM {source} WHERE {where}", [files, *values]).fetchone()
        assert total is not None
        text = f"SELECT * EXCLUDE ({', '.join(HEAVY)}) FROM {source} WHERE {where} ORDER BY {key} {direction}{ties} LIMIT ? OFFSET ?"
        return database.execute(text, [files, *values, query.limit, query.offset]).df(), total[0]

    return read_files(run, query.first_step, query.last_step, read) or (pd.DataFrame(columns=pd.Index(names)), 0)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
