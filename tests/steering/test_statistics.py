"""The estimates against scipy's, pingouin's and statsmodels' values on the same random numbers, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.steering import statistics
from workbench.steering.statistics import Clusters

ALONE = Clusters.draw(np.arange(60), 200)


def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    given_NZ = rng.integers(0, 5, (60, 2)).astype(float)
    x_N = rng.integers(0, 5, 60).astype(float)
    return x_N, 0.6 * x_N - 0.8 * given_NZ[:, 0] + 0.3 * given_NZ[:, 1] + rng.normal(size=60), given_NZ


def test_partial_correlation_is_that_of_pingouin_and_of_regression_residuals():
    """0.7567620895840732 is pingouin 0.7.0's; statsmodels 0.15.0's residuals give the same to 15 digits."""
    x_N, y_N, given_NZ = drawn()
    estimate = statistics.partial_correlation(x_N, y_N, given_NZ, ALONE, "x", "y")
    assert estimate.value == pytest.approx(0.7567620895840732, abs=1e-12)
    design = np.column_stack([np.ones(60), given_NZ])
    left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x_N, y_N)]
    assert estimate.value == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_partial_correlation_is_that_of_the_precision_matrix(seed: int):
    """r = -P_xy / sqrt(P_xx P_yy), P the inverse of the correlation matrix: another formula for the same."""
    columns_ND = np.random.default_rng(seed).normal(size=(40, 5)) @ np.random.default_rng(seed + 100).normal(size=(5, 5))
    precision = np.linalg.inv(np.corrcoef(columns_ND.T))
    expected = -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])
    clusters = Clusters.draw(np.arange(40) // 4, 100)
    estimate = statistics.partial_correlation(columns_ND[:, 0], columns_ND[:, 1], columns_ND[:, 2:], clusters, "x", "y")
    assert estimate.value == pytest.approx(expected, abs=1e-9)
    assert estimate.low is not None and estimate.high is not None and estimate.low < estimate.value < estimate.high


def test_resampled_partial_correlations_are_those_of_the_repeated_rows():
    x_N, y_N, given_NZ = drawn()
    clusters = Clusters.draw(np.arange(60) // 5, 300)
    values = []
    for counts_P in clusters.counts_RP:
        rows = np.repeat(np.arange(60), counts_P[clusters.of_N])
        precision = np.linalg.inv(np.corrcoef(np.column_stack([x_N, y_N, given_NZ])[rows].T))
        values.append(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))
    estimate = statistics.partial_correlation(x_N, y_N, given_NZ, clusters, "x", "y")
    assert (estimate.low, estimate.high) == pytest.approx(tuple(np.percentile(values, (2.5, 97.5))), abs=1e-9)


def test_givens_that_do_not_vary_or_repeat_others_change_nothing():
    x_N, y_N, given_NZ = drawn()
    more = np.column_stack([given_NZ, np.full(60, 3.0), given_NZ.sum(1)])
    alike = [statistics.partial_correlation(x_N, y_N, given, ALONE, "x", "y").value for given in (given_NZ, more)]
    assert alike[0] == pytest.approx(alike[1], abs=1e-9)


def test_what_the_rows_do_not_determine_is_none_with_the_reason():
    x_N, y_N, given_NZ = drawn()
    constant = statistics.partial_correlation(x_N, np.full(60, 2.0), given_NZ, ALONE, "requested humor", "measured wit")
    assert (constant.value, constant.low, constant.why) == (None, None, "measured wit does not vary over 60 rows")
    follows = statistics.partial_correlation(given_NZ[:, 0] * 2 + 1, y_N, given_NZ, ALONE, "requested humor", "measured wit")
    assert follows.value is None and "follows from the other requested ratings" in follows.why
    assert statistics.spearman(np.full(3, 1.0), np.arange(3.0), ALONE, "x", "y").why == "x does not vary over 3 rows"
    nobody = Clusters.draw(np.array([], int), 10)
    assert statistics.mean(np.array([]), nobody).why == "no row was measured"


def test_spearman_is_scipys():
    """0.5545897583667533 is scipy 1.17.1's, with ties on both sides."""
    x_N, y_N, _ = drawn()
    assert statistics.spearman(x_N, np.round(y_N), ALONE, "x", "y").value == pytest.approx(0.5545897583667533, abs=1e-12)


def test_intervals_are_of_clusters_not_of_rows():
    """Ten prompts, each with ten equal answers: the mean is as sure as ten values, whose standard error is s / sqrt(10), not s / sqrt(100)."""
    values_P = np.random.default_rng(3).normal(size=10)
    clusters = Clusters.draw(np.repeat(np.arange(10), 10), 4000)
    estimate = statistics.mean(np.repeat(values_P, 10), clusters)
    assert estimate.value == pytest.approx(values_P.mean())
    assert estimate.low is not None and estimate.high is not None
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * values_P.std() / np.sqrt(10), rel=0.06)


def test_one_cluster_has_no_interval():
    estimate = statistics.mean(np.array([1.0, 3.0]), Clusters.draw(np.zeros(2, int), 50))
    assert (estimate.value, estimate.low, estimate.high) == (2.0, None, None)


def test_differences_draw_both_sides_prompts_together():
    """Each prompt's answer at the highest level has one point more than at the lowest: every resample differs by exactly one."""
    base_P = np.random.default_rng(5).normal(size=12)
    clusters = Clusters.draw(np.arange(12), 100)
    estimate = statistics.difference(base_P + 1, clusters, base_P, clusters)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((1.0, 1.0, 1.0))


def test_weighted_correlation_counts_each_value_as_often_as_it_occurs():
    x, y, counts = np.array([0.0, 1, 2, 4]), np.array([1.0, 1, 3, 2]), np.array([3, 1, 2, 5])
    expected = np.corrcoef(np.repeat(x, counts), np.repeat(y, counts))[0, 1]
    assert statistics.weighted_correlation(x, y, counts) == pytest.approx(expected)
    unrated = np.append(x, np.nan), np.append(y, 3.0), np.append(counts, 7)
    assert statistics.weighted_correlation(*unrated) == pytest.approx(expected)
    assert statistics.weighted_correlation(x, np.ones(4), counts) is None
