"""All answers of a run that generated, as one Parquet file and as JSON lines that serve as data.

A line of answers.jsonl: {"row", "sample", "prompt", "response", "finish_reason", "tokens", "logprobs", and the data row's other columns}. `row`
counts the data's rows from 0; `prompt` is the data's, as messages; `logprobs` are of the sampled tokens, at the temperature that they were sampled at.
`requested` are the ratings that the answer was asked for, where it was; the prompt is without them. The data's own answer
is `ground_truth`, and its ratings are left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.rundir import opening, rollouts
from workbench.rundir.files import LONGEST_LINE, decoded, replacing
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import RunDir

JSONL, PARQUET = "answers.jsonl", "answers.parquet"


@dataclass(frozen=True)
class Asked:
    """What was asked: row `row` of the data, its prompt as messages of role and content, its other columns, and the requested ratings."""

    prompt: Sequence[Mapping[str, str]]
    columns: Mapping[str, str]
    row: int
    requested: Mapping[str, float] | None = None


def write(run: RunDir, rows: Sequence[Asked], prompts_per_step: int, samples_per_prompt: int) -> tuple[Path, Path]:
    """Put the answers of all steps into both files, a step at a time; each appears whole. `rows` are what was asked, in order.

    Raises:
        ValueError: a step's file is missing or damaged.
        OSError: the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    steps = range(1, -(-len(rows) // prompts_per_step) + 1)
    shape = pa.schema([("row", pa.int64()), *rollouts.schema()])
    with replacing(run.path / JSONL) as lines, replacing(run.path / PARQUET) as file, pq.ParquetWriter(file, shape, compression="zstd") as table:
        for step in steps:
            first = (step - 1) * prompts_per_step
            numbered = [(first + answer["rollout"] // samples_per_prompt, answer) for answer in rollouts.whole_step(run, step)]
            answers = [{**answer, "row": rows[number].row} for number, answer in numbered]
            table.write_table(pa.Table.from_pylist(answers, schema=shape))
            lines.writelines(_line(answer, rows[number]) for answer, (number, _) in zip(answers, numbered, strict=True))
    return run.path / JSONL, run.path / PARQUET


def _line(answer: Mapping[str, object], row: Asked) -> bytes:
    kept = {name: answer[name] for name in ("row", "sample", "response", "finish_reason", "tokens")}
    requested = {} if row.requested is None else {"requested": dict(row.requested)}
    line = {**row.columns, **kept, "prompt": list(row.prompt), **requested, "logprobs": answer["rollout_logprobs"]}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def check_lines(path: Path) -> None:
    """Look at the first line of answers.jsonl and at its end. Raises FileNotFoundError, and Unreadable for what is not whole."""
    with open(path, "rb", opener=opening.opener) as file:
        first, size = file.readline(LONGEST_LINE), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if not size or file.read() != b"\n":
            raise Unreadable(path, "it does not end with a whole line" if size else "empty")
    try:
        line = decoded(first)
    except ValueError:
        line = None
    if not isinstance(line, dict) or "response" not in line:
        raise Unreadable(path, f"no answer in its first line: {first[:40]!r}")


def check_table(path: Path) -> None:
    """Look at the columns of answers.parquet. Raises FileNotFoundError, and Unreadable for what is no table of answers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open(path, "rb", opener=opening.opener) as file:
        try:
            names = pq.read_schema(file).names
        except (pa.ArrowException, OSError) as error:
            raise Unreadable(path, f"no Parquet file: {error}") from None
    if "response" not in names:
        raise Unreadable(path, f"no table of answers: its columns are {', '.join(names)[:80]}")
