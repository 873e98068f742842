"""Thinning and smoothing of long curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

POINTS = 1000
SMOOTHING = {"Off": 0.0, "Light": 0.6, "Medium": 0.9, "Strong": 0.98}
"""What a reader of curves may choose: the weight of the past in `ema`."""


def thin(y: Sequence[float] | np.ndarray, limit: int = POINTS) -> np.ndarray:
    """The indices to draw: the least and the greatest value of each of limit / 2 equal stretches, and both ends.

    A stretch with values that are not finite keeps the first of them too, so that the gap shows; there may be up to limit / 2 of those.
    """
    values = np.asarray(y, dtype=float)
    count = len(values)
    if count <= limit:
        return np.arange(count)
    edges = np.linspace(0, count, max(1, limit // 2 - 1) + 1).astype(int)
    finite = np.isfinite(values)
    keep = [np.array([0, count - 1]), _first_of_each(~finite, edges)]
    keep += [_least_of_each(np.where(finite, towards, np.inf), edges) for towards in (values, -values)]
    return np.unique(np.concatenate(keep))


def _least_of_each(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The index of each stretch's least value; of equal ones the first."""
    lowest = np.minimum.reduceat(values, edges[:-1])
    return _first_of_each(values == np.repeat(lowest, np.diff(edges)), edges)


def _first_of_each(chosen: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The index of the first that is chosen in each stretch that has one."""
    indices = np.flatnonzero(chosen)
    _, first = np.unique(np.searchsorted(edges, indices, side="right"), return_index=True)
    return indices[first]


def ema(y: Sequence[float] | np.ndarray, weight: float) -> np.ndarray:
    """The exponential moving average with weight 0 <= w < 1 on the past, without bias at the start.

    s_t = sum_i w^(t-i) y_i / sum_i w^(t-i) over the finite values; a value that is not finite leaves it as it was.
    """
    values = np.asarray(y, dtype=float)
    if weight == 0 or len(values) == 0:
        return values
    finite = pd.Series(np.where(np.isfinite(values), values, np.nan))
    return finite.ewm(alpha=1 - weight, adjust=True, ignore_na=True).mean().to_numpy()


def ema_since(y: Sequence[float], start: int, weight: float) -> np.ndarray:
    """`ema(y, weight)[start:]`, without reading all that came before: a value's share is below 1e-16 after `log(1e-16) / log(weight)` later ones."""
    if weight == 0 or start == 0:
        return ema(y[start:], weight)
    reach = math.ceil(math.log(1e-16) / math.log(weight))
    first = max(0, start - reach)
    if not np.isfinite(y[first:start]).all():  # they have no share: more of the past counts
        first = 0
    return ema(y[first:], weight)[start - first :]
