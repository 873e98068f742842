"""What held-out scores of a reward model tell: calibration, overlap, length bias; for ratings, error and rank agreement. Pure numpy.

Each function gives {"metrics": {name: number}, "kind": …} and small tables for `workbench.views.diagnostics`, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

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
            points.append(
                {
                    "name": name,
                    "rated": len(actual),
                    "actual": actual[keep].tolist(),
                    "predicted": predicted[keep].tolist(),
                    "bins": rating_bins(predicted, actual),
                }
            )
    return {"kind": "regression", "metrics": _known(metrics), "attributes": points}


def ordinal(probabilities_BKL: np.ndarray, ratings_BK: np.ndarray, attributes: Sequence[str], lowest: int) -> dict[str, object]:
    """Probabilities of B answers' levels from `lowest` on, by attribute, and their ratings, NaN where an answer was not rated.

    Beside what `regression` tells of the mean rating: whether the likeliest level is as often the given one as it is likely, and which levels are taken for
    which. A rating between two levels counts for both, by its distance.
    """
    levels = probabilities_BKL.shape[2]
    known = regression(probabilities_BKL @ np.arange(lowest, lowest + levels), ratings_BK, attributes)
    by_name = {each["name"]: each for each in cast(list[dict[str, object]], known["attributes"])}
    for k, name in enumerate(attributes):
        rated_B = np.isfinite(ratings_BK[:, k]) & np.isfinite(probabilities_BKL[:, k]).all(1)
        if not rated_B.any():
            continue
        chances_RL, given_RL = probabilities_BKL[rated_B, k], shares(ratings_BK[rated_B, k] - lowest, levels)
        likeliest_R = chances_RL.argmax(1)
        right_R = given_RL[np.arange(len(given_RL)), likeliest_R]
        bins, ece = reliability(chances_RL.max(1), right_R, 0.0)
        counts = [given_RL[likeliest_R == level].sum(0) for level in range(levels)]
        confusion = {"levels": list(range(lowest, lowest + levels)), "counts": np.stack(counts, 1).tolist()}
        by_name[name] |= {"calibration": bins, "confusion": confusion}
        cast(dict[str, float], known["metrics"])[M.ECE_OF(name)] = ece
    return known


def shares(levels_R: np.ndarray, levels: int) -> np.ndarray:
    """Each rating, counted in levels from 0, as shares of the levels: one of its own, or of the two that it lies between. [R, levels], rows sum to 1.

    Raises:
        ValueError: a rating beyond the levels.
    """
    if len(levels_R) and (levels_R.min() < 0 or levels_R.max() > levels - 1):
        raise ValueError(
            f"ratings from {levels_R.min():g} to {levels_R.max():g} levels above the least; the head has {levels}, from 0 to {levels - 1}"
        )
    return np.maximum(0.0, 1 - np.abs(levels_R[:, None] - np.arange(levels)))


def rating_bins(predicted_R: np.ndarray, actual_R: np.ndarray) -> list[dict[str, float]]:
    """Mean prediction and mean given rating of equal shares of the answers, in the order of the prediction; equal predictions stay together."""
    order = np.argsort(predicted_R, kind="stable")
    predicted_R, actual_R = predicted_R[order], actual_R[order]
    edges = np.linspace(0, len(order), min(CALIBRATION_BINS, len(order)) + 1).astype(int)
    starts = np.unique(np.searchsorted(predicted_R, predicted_R[edges[:-1]]))
    parts = zip(np.split(predicted_R, starts[1:]), np.split(actual_R, starts[1:]), strict=True)
    return [{"predicted": float(p.mean()), "observed": float(a.mean()), "count": len(p)} for p, a in parts]


def calibration(margin_P: np.ndarray, right_P: np.ndarray) -> tuple[list[dict[str, float]], float]:
    """How often the preferred answer scores higher, by how sure the model is: sigmoid(|margin|), 0.5 to 1, in equal bins; empty ones are left out.

    Returns:
        One {predicted, observed, count} a bin, and the expected calibration error: the mean gap, weighted by count (Naeini et al., AAAI 2015).
    """
    return reliability(1 / (1 + np.exp(-np.abs(margin_P))), right_P, 0.5)


def reliability(sure_P: np.ndarray, right_P: np.ndarray, least: float) -> tuple[list[dict[str, float]], float]:
    """How often it is right by how sure it is, from `least` to 1, in equal bins; empty ones are left out. Returns as `calibration`."""
    place_P = np.minimum(((sure_P - least) / (1 - least) * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = []
    for bin_index in np.unique(place_P):
        here = place_P == bin_index
        bins.append({"predicted": float(sure_P[here].mean()), "observed": float(right_P[here].mean()), "count": int(here.sum())})
    return bins, sum(b["count"] * abs(b["predicted"] - b["observed"]) for b in bins) / max(1, len(sure_P))


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
