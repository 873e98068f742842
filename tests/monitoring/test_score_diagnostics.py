"""Calibration by attribute, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.monitoring import score_diagnostics


def test_an_ordinal_head_by_hand():
    """Levels 1 to 3. Likeliest: 1 (0.75), 3 (0.8), 3 (0.85), 2 (0.6). Rated 1, 3, 2, 2.5: right are 1, 1, 0 and a half.

    Bins: 0.6 alone (gap 0.1), 0.75 alone (gap 0.25), and 0.8 with 0.85: 0.825 sure, 0.5 right, gap 0.325, twice. Error (0.1 + 0.25 + 2 x 0.325) / 4 = 0.25.
    """
    chances = np.array([[[0.75, 0.15, 0.1]], [[0.1, 0.1, 0.8]], [[0.05, 0.1, 0.85]], [[0.1, 0.6, 0.3]], [[0.2, 0.3, 0.5]]])
    ratings = np.array([[1.0], [3.0], [2.0], [2.5], [np.nan]])
    result = score_diagnostics.ordinal(chances, ratings, ("wit",), lowest=1)
    (wit,) = result["attributes"]
    assert result["kind"] == "regression" and wit["rated"] == 4
    assert wit["predicted"] == pytest.approx([1.35, 2.7, 2.8, 2.2])
    assert [(b["predicted"], b["observed"], b["count"]) for b in wit["calibration"]] == [
        (pytest.approx(0.6), 0.5, 1),
        (pytest.approx(0.75), 1.0, 1),
        (pytest.approx(0.825), 0.5, 2),
    ]
    assert result["metrics"]["ece_wit"] == pytest.approx(0.25)
    assert wit["confusion"] == {"levels": [1, 2, 3], "counts": [[1, 0, 0], [0, 0.5, 1], [0, 0.5, 1]]}


def test_an_attribute_that_nobody_rated_is_left_out():
    result = score_diagnostics.ordinal(np.full((2, 2, 3), 1 / 3), np.array([[0.0, np.nan], [2.0, np.nan]]), ("wit", "humor"), lowest=0)
    assert [each["name"] for each in result["attributes"]] == ["wit"]
    assert not [name for name in result["metrics"] if name.endswith("humor")]


def test_a_rating_beyond_the_levels_is_refused():
    with pytest.raises(ValueError, match="the head has 3, from 0 to 2"):
        score_diagnostics.ordinal(np.full((1, 1, 3), 1 / 3), np.array([[3.0]]), ("wit",), lowest=0)


def test_bins_of_equal_shares_keep_equal_predictions_together():
    predicted, actual = np.array([3.0, 1, 1, 1, 2, 2]), np.array([4.0, 0, 1, 2, 2, 3])
    assert score_diagnostics.rating_bins(predicted, actual) == [
        {"predicted": 1.0, "observed": 1.0, "count": 3},
        {"predicted": 2.0, "observed": 2.5, "count": 2},
        {"predicted": 3.0, "observed": 4.0, "count": 1},
    ]
