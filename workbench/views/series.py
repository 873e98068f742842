"""Thinning and smoothing of long curves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

POINTS = 1000


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
    low = np.where(finite, values, np.inf)
    high = np.where(finite, values, -np.inf)
    keep = {0, count - 1}
    for start, stop in itertools.pairwise(edges):
        keep.add(start + int(low[start:stop].argmin()))
        keep.add(start + int(high[start:stop].argmax()))
        if not finite[start:stop].all():
            keep.add(start + int((~finite[start:stop]).argmax()))
    return np.array(sorted(keep))


def ema(y: Sequence[float] | np.ndarray, weight: float) -> np.ndarray:
    """The exponential moving average with weight 0 <= w < 1 on the past, without bias at the start.

    s_t = sum_i w^(t-i) y_i / sum_i w^(t-i) over the finite values; a value that is not finite leaves it as it was.
    """
    values = np.asarray(y, dtype=float)
    if weight == 0 or len(values) == 0:
        return values
    finite = pd.Series(np.where(np.isfinite(values), values, np.nan))
    return finite.ewm(alpha=1 - weight, adjust=True, ignore_na=True).mean().to_numpy()
