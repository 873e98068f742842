"""The log-probabilities of a frozen reference on a data set's rows: computed once, and kept on the disk."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from workbench.data.packing import Row, targets
from workbench.engine import parallel, weight_files
from workbench.engine.step import Policy
from workbench.processes.rank import Rank
from workbench.settings import sources
from workbench.settings.outputs import Outputs


def with_reference(rows: Sequence[Row], part: str, policy: Policy, rank: Rank) -> list[Row]:
    """The rows with the log-probabilities of the policy's first weights, from the disk where the same were computed before. `part` names the rows."""
    if not rows:  # such as those of a validation that is switched off
        return []
    key = hashlib.sha256(f"{weight_files.digest(rank.directory)} {rank.spec.model.precision}".encode())
    for row in rows:
        masks = [[list(mask) for mask in row.branch_learn]] if row.branch_learn else []
        key.update(repr((list(row.prefix), [list(b) for b in row.branches], list(row.learn), *masks)).encode())
    path = sources.cache_root() / "reference" / f"{key.hexdigest()[:24]}.npz"
    if not parallel.from_first(path.is_file()):
        known = _logprobs(rows, policy, rank.progress(f"reference log-probabilities ({part})"))
        rank.made_by_first(lambda: _save(path, np.concatenate(known)), "saving them")
    return filled(rows, np.load(path, allow_pickle=False)["logprobs"])


def measured_by_reference(rows: Sequence[Row], policy: Policy) -> list[Row]:
    """The rows with the log-probabilities of the policy's reference as it is now."""
    return [dataclasses.replace(row, reference_logprobs_N=each) for row, each in zip(rows, _logprobs(rows, policy), strict=True)]


def _logprobs(rows: Sequence[Row], policy: Policy, progress: Callable[[int, int], None] | None = None) -> list[np.ndarray]:
    return [given.of("logprobs_N") for given in policy.outputs(rows, Outputs(logprobs=True), reference=True, progress=progress)]


def filled(rows: Sequence[Row], logprobs: np.ndarray) -> list[Row]:
    """The rows, each with its part of the reference's log-probabilities of all targets."""
    ends = np.cumsum([len(targets(row)) for row in rows])[:-1]
    parts = np.split(logprobs, ends)
    return [dataclasses.replace(row, reference_logprobs_N=part) for row, part in zip(rows, parts, strict=True)]


def _save(path: Path, logprobs: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(temporary, logprobs=logprobs)
    temporary.replace(path)
