"""Whether answers are what their attributes were set to: achieved ratings, target error, rank correlation, and leakage into other attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from workbench.data.decoding import Broken
from workbench.data.json_rows import json_rows
from workbench.data.limits import Limits
from workbench.data.targets import Targets
from workbench.rundir.adherence import Adherence, Attribute, Estimate, Level
from workbench.steering import statistics
from workbench.steering.rules import word_count
from workbench.steering.statistics import RESAMPLES, Clusters


@dataclass(frozen=True)
class Answered:
    """An answer's prompt (any text that tells prompts apart), the ratings it was asked for, those that were measured (None: not), and its words."""

    prompt: str
    requested: Mapping[str, float]
    measured: Mapping[str, float | None]
    words: int


def read(path: Path) -> list[Answered]:
    """The rows of an `annotated.jsonl` whose answers were asked for with ratings.

    Raises:
        ValueError: a row is none, or was asked for no rating; DataError: the file expands beyond what is read.
    """
    rows = [_answered(where, row) for where, row in json_rows(path, Limits())]
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows


def _answered(where: str, row: object) -> Answered:
    if isinstance(row, Broken) or not isinstance(row, dict):
        raise ValueError(f"{where}: expected an annotated row, found {row!r}")
    tree = cast(Mapping[str, object], row)
    requested, measured, response = tree.get("requested"), tree.get("attributes"), tree.get("response")
    if not isinstance(requested, Mapping) or not requested:
        raise ValueError(f"{where}: no ratings were requested of this answer: `job=generate` with job.targets or job.sweep requests some")
    if not isinstance(measured, Mapping) or not isinstance(response, str):
        raise ValueError(f"{where}: the answer is not measured: `job=annotate` rates it (keys: {', '.join(tree)[:80]})")
    return Answered(repr(tree.get("prompt")), _numbers(where, requested), {**_ratings(where, measured)}, word_count(response))


def _numbers(where: str, values: Mapping[object, object]) -> dict[str, float]:
    numbers = _ratings(where, values)
    if missing := [name for name, value in numbers.items() if value is None]:
        raise ValueError(f"{where}: requested {missing[0]} is null; an attribute that is left free is not named")
    return cast(dict[str, float], numbers)


def _ratings(where: str, values: Mapping[object, object]) -> dict[str, float | None]:
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{where}: {name} is {value!r}; expected a number, or null")
    return {str(name): None if value is None else float(cast(float, value)) for name, value in values.items()}


@dataclass(frozen=True)
class _Table:
    """The rows as columns, NaN where there is nothing; the names of the requested attributes come first in `measured`."""

    requested: Mapping[str, np.ndarray]
    measured: Mapping[str, np.ndarray]
    words_N: np.ndarray
    clusters: Clusters


def measure(
    rows: Sequence[Answered],
    targets: Targets | None = None,
    measured_by: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> Adherence:
    """What the rows tell of each requested attribute. Intervals resample the prompts, since answers to one prompt are alike.

    Args:
        targets: the training rows' ratings, for the correlation between the attributes there.
        measured_by: what rated each attribute.
        warnings: what else makes the figures doubtful.
    """
    table = _table(rows, resamples)
    unmeasured = [name for name, values_N in table.measured.items() if np.isnan(values_N).all()]
    doubts = [f"{name} was requested, and is not measured in any row" for name in unmeasured]
    attributes = [_attribute(name, table) for name in table.requested]
    doubts += [
        f"{each.name}: other attributes' requests vary along with it, so that its own figures have their effect too"
        for each in attributes
        if not each.alone
    ]
    return Adherence(
        rows=len(rows),
        prompts=len({row.prompt for row in rows}),
        attributes=attributes,
        leakage={a: {b: _leakage(a, b, table) for b in table.measured} for a in table.requested},
        correlation={} if targets is None else correlation(targets),
        measured_by=dict(measured_by or {}),
        warnings=[*warnings, *doubts],
    )


def _table(rows: Sequence[Answered], resamples: int) -> _Table:
    asked = list(dict.fromkeys(name for row in rows for name in row.requested))
    measured = list(dict.fromkeys([*asked, *(name for row in rows for name in row.measured)]))
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys(row.prompt for row in rows))}
    of_N = np.array([number[row.prompt] for row in rows], int)
    return _Table(
        {name: _column([row.requested.get(name) for row in rows]) for name in asked},
        {name: _column([row.measured.get(name) for row in rows]) for name in measured},
        np.array([row.words for row in rows], float),
        Clusters.draw(of_N, resamples),
    )


def _column(values: Sequence[float | None]) -> np.ndarray:
    column_N = np.array([np.nan if value is None else value for value in values], float)
    return np.where(np.isfinite(column_N), column_N, np.nan)


def _attribute(name: str, table: _Table) -> Attribute:
    asked_N, measured_N = table.requested[name], table.measured[name]
    compared_N, alone = _compared(name, table)
    known_N = compared_N & np.isfinite(measured_N)
    clusters, difference_N = table.clusters.where(known_N), measured_N[known_N] - asked_N[known_N]
    all_asked = table.clusters.where(compared_N)
    return Attribute(
        name=name,
        rows=int(known_N.sum()),
        alone=alone,
        levels=list(_levels(name, compared_N, table)),
        error=statistics.mean(np.abs(difference_N), clusters),
        bias=statistics.mean(difference_N, clusters),
        spearman=statistics.spearman(asked_N[known_N], measured_N[known_N], clusters, f"requested {name}", f"measured {name}"),
        words=statistics.spearman(asked_N[compared_N], table.words_N[compared_N], all_asked, f"requested {name}", "the answer's words"),
        moved={other: _moved(asked_N, table.measured[other], compared_N, table.clusters) for other in table.measured},
    )


def _compared(name: str, table: _Table) -> tuple[np.ndarray, bool]:
    """The rows on which an attribute is judged, and whether all other requests are equal over its levels there.

    Rows are of one setting where all other requests are equal. Those of settings under which the attribute has every level that it has anywhere; where there
    is no such setting, all rows with a request of it.
    """
    asked_N = table.requested[name]
    here_N = np.isfinite(asked_N)
    others_NK = np.column_stack([np.zeros(len(asked_N)), *(np.nan_to_num(v, nan=np.inf) for n, v in table.requested.items() if n != name)])
    _, setting_N = np.unique(others_NK, axis=0, return_inverse=True)
    levels = len(np.unique(asked_N[here_N]))
    whole = [s for s in np.unique(setting_N[here_N]) if len(np.unique(asked_N[here_N & (setting_N == s)])) == levels]
    return (here_N & np.isin(setting_N, whole), True) if whole else (here_N, False)


def _levels(name: str, compared_N: np.ndarray, table: _Table) -> Iterator[Level]:
    asked_N, measured_N = table.requested[name], table.measured[name]
    for level in np.unique(asked_N[compared_N]):
        here_N = compared_N & (asked_N == level)
        known_N = here_N & np.isfinite(measured_N)
        achieved = statistics.mean(measured_N[known_N], table.clusters.where(known_N))
        yield Level(float(level), int(known_N.sum()), achieved, statistics.mean(table.words_N[here_N], table.clusters.where(here_N)))


def _moved(asked_N: np.ndarray, measured_N: np.ndarray, compared_N: np.ndarray, clusters: Clusters) -> Estimate:
    levels = np.unique(asked_N[compared_N])
    if len(levels) < 2:
        return Estimate(None, why="requested at one level only")
    known_N = compared_N & np.isfinite(measured_N)
    above_N, below_N = known_N & (asked_N == levels[-1]), known_N & (asked_N == levels[0])
    return statistics.difference(measured_N[above_N], clusters.where(above_N), measured_N[below_N], clusters.where(below_N))


def _leakage(a: str, b: str, table: _Table) -> Estimate:
    """The partial correlation of requested a and measured b, given the requests of all others, b's own among them, over the rows that have both.

    A request that is left free has no rating: whether it is free is given beside it.
    """
    known_N = np.isfinite(table.requested[a]) & np.isfinite(table.measured[b])
    if not known_N.any():
        return Estimate(None, why=f"no row has a request of {a} and a measured {b}")
    others = [values_N[known_N] for name, values_N in table.requested.items() if name != a]
    given_NZ = np.column_stack([np.zeros(known_N.sum()), *others, *(np.isnan(values_N) for values_N in others)])
    given_NZ = np.nan_to_num(given_NZ, nan=0.0)
    x_N, y_N = table.requested[a][known_N], table.measured[b][known_N]
    return statistics.partial_correlation(x_N, y_N, given_NZ, table.clusters.where(known_N), f"requested {a}", f"measured {b}")


def correlation(targets: Targets) -> dict[str, dict[str, float | None]]:
    """Pearson's between the ratings of the training rows, over the rows that have both; None where one does not vary."""
    names, counts_V = targets.steering.attributes, np.array(targets.counts, float)
    columns = {name: _column([vector[k] for vector in targets.vectors]) for k, name in enumerate(names)}
    return {a: {b: statistics.weighted_correlation(columns[a], columns[b], counts_V) for b in names} for a in names}
