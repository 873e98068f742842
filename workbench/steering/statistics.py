"""Statistics of rows in clusters (all answers to one prompt), with 95 % intervals by the percentile bootstrap over the clusters. Pure numpy.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 6 and 13. A value that the rows do not determine is an `Estimate` of None that says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workbench.monitoring.score_diagnostics import pearson, ranks
from workbench.rundir.adherence import Estimate

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)
LEAST_VARIANCE = 1e-9
"""Share of a variable's variance below which what is left of it, given others, counts as none."""


@dataclass(frozen=True)
class Clusters:
    """Which cluster each row is of, and how often each cluster is in each resample: `of_N`, `counts_RP`."""

    of_N: np.ndarray
    counts_RP: np.ndarray

    @staticmethod
    def draw(of_N: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Clusters:
        """Resamples of the clusters 0 … P-1, with replacement, the same ones for the same seed."""
        number = int(of_N.max()) + 1 if len(of_N) else 0
        if not number:
            return Clusters(of_N, np.zeros((resamples, 0), int))
        return Clusters(of_N, np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=resamples))

    def where(self, kept_N: np.ndarray) -> Clusters:
        """Of some rows only; the resamples are the same."""
        return Clusters(self.of_N[kept_N], self.counts_RP)

    def interval(self, values_R: np.ndarray) -> tuple[float | None, float | None]:
        """The percentiles of the resamples' values; those that a resample does not determine (NaN) are left out. None for a single cluster."""
        known = values_R[np.isfinite(values_R)]
        if len(np.unique(self.of_N)) < 2 or not len(known):
            return None, None
        low, high = np.percentile(known, PERCENTILES)
        return float(low), float(high)

    def sums(self, values_N: np.ndarray) -> np.ndarray:
        """The sum of some values of the rows ([N, …]) in each resample: [R, …]."""
        by_cluster = np.zeros((self.counts_RP.shape[1], *values_N.shape[1:]))
        np.add.at(by_cluster, self.of_N, values_N)
        return np.tensordot(self.counts_RP, by_cluster, axes=1)


def mean(values_N: np.ndarray, clusters: Clusters) -> Estimate:
    """The mean of the rows' values."""
    if not len(values_N):
        return Estimate(None, why="no row was measured")
    return Estimate(float(values_N.mean()), *clusters.interval(_means(values_N, clusters)))


def difference(above_N: np.ndarray, above: Clusters, below_M: np.ndarray, below: Clusters) -> Estimate:
    """The mean of some rows less that of others; the clusters of both are drawn together."""
    if not len(above_N) or not len(below_M):
        return Estimate(None, why="no row was measured at the lowest, or at the highest, requested level")
    drawn_R = _means(above_N, above) - _means(below_M, below)
    everyone = Clusters(np.concatenate([above.of_N, below.of_N]), above.counts_RP)
    return Estimate(float(above_N.mean() - below_M.mean()), *everyone.interval(drawn_R))


def _means(values_N: np.ndarray, clusters: Clusters) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return clusters.sums(values_N) / clusters.sums(np.ones(len(values_N)))


def spearman(x_N: np.ndarray, y_N: np.ndarray, clusters: Clusters, x: str, y: str) -> Estimate:
    """Spearman's rank correlation, equal values sharing the mean of their ranks. `x` and `y` name the two where one does not vary."""
    for name, values in ((x, x_N), (y, y_N)):
        if len(values) < 2 or np.ptp(values) == 0:
            return Estimate(None, why=f"{name} does not vary over {len(values)} rows")

    def of(rows: np.ndarray) -> float:
        return pearson(ranks(x_N[rows]), ranks(y_N[rows]))

    return Estimate(of(np.arange(len(x_N))), *clusters.interval(_resampled(of, clusters)))


def _resampled(of: Callable[[np.ndarray], float], clusters: Clusters) -> np.ndarray:
    rows = np.arange(len(clusters.of_N))
    return np.array([of(np.repeat(rows, counts_P[clusters.of_N])) for counts_P in clusters.counts_RP])


def partial_correlation(x_N: np.ndarray, y_N: np.ndarray, given_NZ: np.ndarray, clusters: Clusters, x: str, y: str) -> Estimate:
    """Pearson's correlation of what is left of x and of y after the linear regression of each on the given ones, with an intercept.

    By covariances: C_xy|z = C_xy - C_xz C_zz^+ C_zy, r = C_xy|z / sqrt(C_xx|z C_yy|z) (Anderson, An Introduction to Multivariate Statistical Analysis,
    section 2.5). Given ones that do not vary, or follow from others, change nothing.
    """
    moments_NDD = _moments(np.column_stack([x_N, y_N, given_NZ]).astype(float))
    whole = _partial(moments_NDD.sum(0)[None])[0]
    if not np.isfinite(whole):
        why = next((f"{n} does not vary over {len(v)} rows" for n, v in ((x, x_N), (y, y_N)) if len(v) < 2 or np.ptp(v) == 0), "")
        return Estimate(None, why=why or f"{x} or {y} follows from the other requested ratings")
    return Estimate(float(whole), *clusters.interval(_partial(clusters.sums(moments_NDD))))


def _moments(columns_ND: np.ndarray) -> np.ndarray:
    """Each row's products of its columns, centred and with a 1 before them, so that a sum over rows has count, sums and squares."""
    centred = columns_ND - columns_ND.mean(0) if len(columns_ND) else columns_ND
    with_one = np.column_stack([np.ones(len(centred)), centred])
    return with_one[:, :, None] * with_one[:, None, :]


def _partial(moments_RDD: np.ndarray) -> np.ndarray:
    """The partial correlation of the first two columns given the others, from summed moments; NaN where nothing of one is left."""
    with np.errstate(invalid="ignore", divide="ignore"):
        count_R = moments_RDD[:, 0, 0]
        means_RD = moments_RDD[:, 0, 1:] / count_R[:, None]
        covariance = moments_RDD[:, 1:, 1:] / count_R[:, None, None] - means_RD[:, :, None] * means_RD[:, None, :]
        covariance = np.where(np.isfinite(covariance), covariance, 0.0)
        across, inner = covariance[:, :2, 2:], covariance[:, 2:, 2:]
        left = covariance[:, :2, :2] - across @ np.linalg.pinv(inner, rcond=LEAST_VARIANCE, hermitian=True) @ across.transpose(0, 2, 1)
        whole = covariance[:, (0, 1), (0, 1)]
        rest = left[:, (0, 1), (0, 1)]
        value = left[:, 0, 1] / np.sqrt(rest.prod(1))
        known = (whole > 0).all(1) & (rest > LEAST_VARIANCE * whole).all(1)
    return np.where(known, np.clip(value, -1, 1), np.nan)


def weighted_correlation(x_V: np.ndarray, y_V: np.ndarray, counts_V: np.ndarray) -> float | None:
    """Pearson's correlation of values that occur so many times each, over those that both have (not NaN); None where one does not vary."""
    known = np.isfinite(x_V) & np.isfinite(y_V)
    x_V, y_V, counts_V = x_V[known], y_V[known], counts_V[known]
    if not len(x_V) or np.ptp(x_V) == 0 or np.ptp(y_V) == 0:
        return None
    dx_V, dy_V = x_V - np.average(x_V, weights=counts_V), y_V - np.average(y_V, weights=counts_V)
    return float((counts_V * dx_V * dy_V).sum() / np.sqrt((counts_V * dx_V**2).sum() * (counts_V * dy_V**2).sum()))
