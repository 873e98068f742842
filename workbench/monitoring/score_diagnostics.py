"""What held-out scores of a reward model tell: calibration, overlap, length bias; for ratings, error and rank agreement. Pure numpy.

Each function gives {"metrics": {name: number}, "kind": …} and small tables for `workbench.views.diagnostics`, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench import metrics as M

CALIBRATION_BINS = 10
HISTOGRAM_BINS = 30
POINTS = 500
"""Points of a scatter that are kept: drawn at random, the same ones each time."""


def ranking(scores_P2: np.ndarray, lengths_P2: np.ndarray) -> dict[str, object]:
    """Scores and answer lengths (tokens) of P pairs, chosen first. Pairs whose scores are not finite are left out."""
    finite = np.isfinite(scores_P2).all(axis=1)
    scores_P2, lengths_P2 = scores_P2[finite].astype(float), lengths_P2[finite]
    if not len(scores_P2):
        return {"kind": "ranking", "metrics": {}}
    margin_P = scores_P2[:, 0] - scores_P2[:, 1]
    right_P = np.where(margin_P == 0, 0.5, margin_P > 0)
    bins, ece = calibration(margin_P, right_P)
    longer_P = np.sign(lengths_P2[:, 0] - lengths_P2[:, 1])
    metrics: dict[str, float] = {
        M.ACCURACY: right_P.mean(),
        M.ECE: ece,
        M.REWARDS_ALL_MEAN: scores_P2.mean(),
        M.REWARDS_ALL_STD: scores_P2.std(),
        M.LENGTH_PEARSON: pearson(lengths_P2.ravel(), scores_P2.ravel()),
        M.LENGTH_SPEARMAN: pearson(ranks(lengths_P2.ravel()), ranks(scores_P2.ravel())),
        M.ACCURACY_LONGER_CHOSEN: _mean(right_P[longer_P > 0]),
        M.ACCURACY_SHORTER_CHOSEN: _mean(right_P[longer_P < 0]),
    }
    edges = np.histogram_bin_edges(scores_P2, HISTOGRAM_BINS)
    keep = _thinned(scores_P2.size)
    return {
        "kind": "ranking",
        "metrics": _known(metrics),
        "calibration": bins,
        "histogram": {"edges": edges.tolist(), **{side: np.histogram(scores_P2[:, i], edges)[0].tolist() for i, side in enumerate(_SIDES)}},
        "lengths": {
            "tokens": lengths_P2.ravel()[keep].tolist(),
            "scores": scores_P2.ravel()[keep].tolist(),
            "chosen": [bool(kept % 2 == 0) for kept in keep],
        },
    }


def regression(scores_BK: np.ndarray, ratings_BK: np.ndarray, attributes: Sequence[str]) -> dict[str, object]:
    """Scores of B answers and their ratings, NaN where an answer was not rated."""
    metrics: dict[str, float] = {}
    points = []
    for k, name in enumerate(attributes):
        known = np.isfinite(ratings_BK[:, k]) & np.isfinite(scores_BK[:, k])
        actual, predicted = ratings_BK[known, k].astype(float), scores_BK[known, k].astype(float)
        metrics |= {M.MAE_OF(name): _mean(np.abs(actual - predicted)), M.SPEARMAN_OF(name): pearson(ranks(actual), ranks(predicted))}
        keep = _thinned(len(actual))
        if len(actual):
            points.append({"name": name, "rated": len(actual), "actual": actual[keep].tolist(), "predicted": predicted[keep].tolist()})
    return {"kind": "regression", "metrics": _known(metrics), "attributes": points}


def calibration(margin_P: np.ndarray, right_P: np.ndarray) -> tuple[list[dict[str, float]], float]:
    """How often the preferred answer scores higher, by how sure the model is: sigmoid(|margin|), 0.5 to 1, in equal bins; empty ones are left out.

    Returns:
        One {predicted, observed, count} a bin, and the expected calibration error: the mean gap, weighted by count (Naeini et al., AAAI 2015).
    """
    sure_P = 1 / (1 + np.exp(-np.abs(margin_P)))
    place_P = np.minimum(((sure_P - 0.5) * 2 * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = []
    for bin_index in np.unique(place_P):
        here = place_P == bin_index
        bins.append({"predicted": float(sure_P[here].mean()), "observed": float(right_P[here].mean()), "count": int(here.sum())})
    return bins, sum(b["count"] * abs(b["predicted"] - b["observed"]) for b in bins) / max(1, len(margin_P))


def ranks(values: np.ndarray) -> np.ndarray:
    """1 for the least; equal values share the mean of their ranks."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[position]


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation; NaN where one of the two does not vary. (Of ranks: Spearman's.)"""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


_SIDES = ("chosen", "rejected")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _known(metrics: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}


def _thinned(count: int) -> np.ndarray:
    return np.arange(count) if count <= POINTS else np.sort(np.random.default_rng(0).choice(count, POINTS, replace=False))
