"""The reachable region: which settings of the attributes the training rows have enough of, and the nearest that they do.

A setting is reachable where at least `ROWS` training rows have, for every attribute that it sets, a rating within `WITHIN` of the set one (the maximum norm).
Attributes that are left free do not count, and a row that was not rated for one that is set does not. So it is a statement about the data: a model has
seen answers like those that are asked for, and what it learnt from them is what adherence measures. Whole-number ratings within half a level are the level's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from workbench.data.targets import Targets

WITHIN = 0.5
ROWS = 5


@dataclass(frozen=True)
class Reach:
    """Whether a setting is reachable. `rows`: training rows near it.

    `nearest`: the reachable setting at the least Euclidean distance (of several the one with most rows), itself where it is reachable, None where the
    data have none; `nearest_rows` and `distance` are of it. `reason` says why a setting is not reachable.
    """

    requested: Mapping[str, float]
    reachable: bool
    rows: int
    nearest: Mapping[str, float] | None
    nearest_rows: int = 0
    distance: float = 0.0
    reason: str = ""


def nearest_reachable(targets: Targets, requested: Mapping[str, float], rows: int = ROWS, within: float = WITHIN) -> Reach:
    """Whether the training data reach a setting, and the nearest one that they do.

    Args:
        requested: ratings of some attributes; the others are free.
        rows: how many training rows make a setting reachable.
        within: how far each of their ratings may be from the requested one.

    Raises:
        ValueError: the model has no such attribute, or nothing is requested.
    """
    steering = targets.steering
    if unknown := [name for name in requested if name not in steering.attributes]:
        raise ValueError(f"the model has no attribute {unknown[0]}; it has: {', '.join(steering.attributes)}")
    if not requested:
        raise ValueError(f"no attribute is set; the model has: {', '.join(steering.attributes)}")
    names = tuple(requested)
    points_VK, counts_V = _projected(targets, names)
    wanted_K = np.array([requested[name] for name in names], float)
    near = _rows_near(points_VK, counts_V, wanted_K, within)
    if near >= rows:
        return Reach(dict(requested), True, near, dict(requested), near)
    reason = f"{near} training rows have ratings within {within:g} of these; {rows} make a setting reachable"
    distances_V = np.linalg.norm(points_VK - wanted_K, axis=1)
    best: tuple[float, int, int] | None = None
    for index in np.argsort(distances_V, kind="stable"):
        if best and distances_V[index] > best[0] + 1e-9:
            break
        count = _rows_near(points_VK, counts_V, points_VK[index], within)
        if count >= rows and (best is None or count > best[1]):
            best = float(distances_V[index]), count, int(index)
    if best is None:
        return Reach(dict(requested), False, near, None, reason=f"{reason}, and none is")
    distance, count, index = best
    return Reach(dict(requested), False, near, dict(zip(names, points_VK[index].tolist(), strict=True)), count, distance, reason)


def _projected(targets: Targets, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ratings of some attributes among the rows that have all of them, and how many rows have each."""
    at = [targets.steering.attributes.index(name) for name in names]
    picked = [([vector[k] for k in at], count) for vector, count in zip(targets.vectors, targets.counts, strict=True)]
    rated = [(values, count) for values, count in picked if None not in values]
    if not rated:
        return np.zeros((0, len(names))), np.zeros(0, int)
    points_VK, index_V = np.unique(np.array([values for values, _ in rated], float), axis=0, return_inverse=True)
    return points_VK, np.bincount(index_V.ravel(), weights=[count for _, count in rated]).astype(int)


def _rows_near(points_VK: np.ndarray, counts_V: np.ndarray, wanted_K: np.ndarray, within: float) -> int:
    return int(counts_V[(np.abs(points_VK - wanted_K) <= within + 1e-9).all(1)].sum())


def along(targets: Targets, name: str, others: Mapping[str, float], rows: int = ROWS) -> list[Reach]:
    """The settings of one attribute's levels with the others as they are: what its slider is marked with.

    Raises:
        ValueError: as `nearest_reachable`.
    """
    return [nearest_reachable(targets, {**others, name: float(level)}, rows) for level in targets.steering.levels]
