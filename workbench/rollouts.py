"""The rollout files of a run, `rollouts/<step>.parquet`: every answer of a step with all that was computed of it. DuckDB reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb
    import pandas as pd

    from workbench.store import RunDir

TEXTS = ("prompt_id", "prompt", "response", "finish_reason")
COUNTS = ("step", "rollout", "sample", "prompt_tokens", "response_tokens", "weights_version")
PER_TOKEN = ("logprobs", "rollout_logprobs", "reference_logprobs", "kl", "entropy", "values", "advantages", "returns")
"""One value a token of the response; null where the algorithm has none."""
SORTABLE = ("step", "rollout", "reward", "response_tokens", "kl_sum")


@dataclass(frozen=True)
class Query:
    """Which rollouts of a run, in which order. An empty search finds all."""

    search: str = ""
    first_step: int = 0
    last_step: int = 2**31 - 1
    finish_reason: str = ""
    prompt_id: str = ""
    sort: str = "step"
    descending: bool = True
    offset: int = 0
    limit: int = 50


def folder(run: RunDir) -> Path:
    return run.path / "rollouts"


def write(run: RunDir, step: int, records: Sequence[Mapping[str, Any]]) -> Path:
    """Put a step's file in place, whole, in place of an earlier attempt's. Raises OSError on a full disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    components = sorted({name for record in records for name in record if name.startswith("reward/")})
    schema = pa.schema(
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
    rows = [{**record, "kl_sum": None if record.get("kl") is None else float(sum(record["kl"]))} for record in records]
    folder(run).mkdir(parents=True, exist_ok=True)
    partial, final = folder(run) / f".{step}.partial", folder(run) / f"{step}.parquet"
    with partial.open("wb") as file:
        pq.write_table(pa.Table.from_pylist(rows, schema), file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(final)
    return final


def steps(run: RunDir) -> list[int]:
    """The steps that have a file, ascending."""
    return sorted(int(path.stem) for path in folder(run).glob("*.parquet") if path.stem.isdigit())


def page(run: RunDir, query: Query) -> tuple[pd.DataFrame, int]:
    """A page of rollouts without their arrays, and how many there are in all.

    Raises:
        ValueError: a column that cannot be sorted by.
    """
    if query.sort not in SORTABLE:
        raise ValueError(f"rollouts are sorted by one of {', '.join(SORTABLE)}, got {query.sort!r}")
    files = [str(folder(run) / f"{step}.parquet") for step in steps(run) if query.first_step <= step <= query.last_step]
    if not files:
        import pandas as pd

        return pd.DataFrame(), 0
    where = "(? = '' OR contains(lower(prompt), lower(?)) OR contains(lower(response), lower(?))) AND ? IN ('', finish_reason) AND ? IN ('', prompt_id)"
    values = [query.search, query.search, query.search, query.finish_reason, query.prompt_id]
    dropped = ", ".join(("pieces", "tokens", *PER_TOKEN))
    order = f"{query.sort} {'DESC' if query.descending else 'ASC'}, step DESC, rollout"
    with _database() as database:
        source = "read_parquet(?, union_by_name = true)"
        total = database.execute(f"SELECT count(*) FROM {source} WHERE {where}", [files, *values]).fetchone()
        text = f"SELECT * EXCLUDE ({dropped}) FROM {source} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"
        found = database.execute(text, [files, *values, query.limit, query.offset]).df()
    return found, total[0] if total else 0


def one(run: RunDir, step: int, rollout: int) -> dict[str, Any] | None:
    """A rollout with its arrays; None where there is none."""
    found = _rows(run, step, "rollout = ?", [rollout])
    return found[0] if found else None


def follow(run: RunDir, prompt_id: str) -> list[dict[str, Any]]:
    """A prompt's rollouts over the steps, the newest first, without arrays."""
    frame, _ = page(run, Query(prompt_id=prompt_id, limit=1000))
    return frame.to_dict("records")  # type: ignore[return-value]


def of_step(run: RunDir, step: int) -> pd.DataFrame:
    """A step's rollouts without their arrays."""
    return page(run, Query(first_step=step, last_step=step, sort="rollout", descending=False, limit=100_000))[0]


def _rows(run: RunDir, step: int, where: str, values: list[Any]) -> list[dict[str, Any]]:
    path = folder(run) / f"{step}.parquet"
    if not path.exists():
        return []
    with _database() as database:
        return database.sql(f"SELECT * FROM read_parquet(?) WHERE {where}", params=[str(path), *values]).to_arrow_table().to_pylist()


def _database() -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(":memory:", config={"threads": 2})
