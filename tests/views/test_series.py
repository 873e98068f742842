"""Thinning and smoothing of curves."""

import math

import numpy as np
import pytest

from workbench.views import series


def test_thin_keeps_short_curves_whole():
    assert series.thin([3.0, 1.0, 2.0], limit=3).tolist() == [0, 1, 2]
    assert series.thin([]).tolist() == []


def test_thin_keeps_the_extremes_of_every_stretch():
    """limit 6 makes two stretches of 0..9: [0..4] has its least at 2 and greatest at 3, [5..9] at 7 and 6; both ends stay."""
    y = [5.0, 5.0, 1.0, 9.0, 5.0, 5.0, 8.0, 0.0, 5.0, 5.0]
    assert series.thin(y, limit=6).tolist() == [0, 2, 3, 6, 7, 9]


def test_thin_finds_one_spike_in_ten_thousand_steps():
    y = np.sin(np.arange(10_000) / 500)
    y[6123] = 40.0
    keep = series.thin(y)
    assert 6123 in keep
    assert len(keep) <= series.POINTS
    assert {0, 9999} <= set(keep.tolist())
    assert y[keep].min() == y.min()


def test_thin_shows_a_gap():
    y = np.zeros(4000)
    y[1234] = math.nan
    y[3000] = math.inf
    assert {1234, 3000} <= set(series.thin(y).tolist())


def test_thin_of_nothing_finite():
    assert len(series.thin([math.nan] * 5000)) <= series.POINTS


def test_ema_by_hand():
    """w = 1/2 on 4, 8, nan, 2: 4; (8 + 4/2) / (1 + 1/2) = 20/3; unchanged; (2 + 8/2 + 4/4) / (1 + 1/2 + 1/4) = 4."""
    assert series.ema([4.0, 8.0, math.nan, 2.0], 0.5) == pytest.approx([4, 20 / 3, 20 / 3, 4])
    assert series.ema([4.0, 8.0], 0).tolist() == [4, 8]
    assert series.ema([1.0, math.inf, 1.0], 0.5) == pytest.approx([1, 1, 1])
