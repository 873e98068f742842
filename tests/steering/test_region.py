"""Which settings the training rows reach, by counting."""

from __future__ import annotations

import pytest

from workbench.data.targets import Targets
from workbench.settings import Steering
from workbench.steering import region

STEERING = Steering(attributes=("humor", "wit"))
TARGETS = Targets(STEERING, ((0, 0), (1, 2), (4, 4), (4, None), (0, 1), (3.5, 4)), (10, 5, 4, 9, 2, 3), {})


def test_a_setting_with_enough_rows_is_reachable():
    reach = region.nearest_reachable(TARGETS, {"humor": 0, "wit": 0})
    assert (reach.reachable, reach.rows, reach.nearest, reach.distance, reach.reason) == (True, 10, {"humor": 0, "wit": 0}, 0, "")


def test_rows_within_half_a_level_count():
    """(4, 4) has its four rows and the three of (3.5, 4); 3.4 is beyond half a level of 4."""
    assert region.nearest_reachable(TARGETS, {"humor": 4, "wit": 4}).rows == 7
    reach = region.nearest_reachable(TARGETS, {"humor": 3.4, "wit": 4})
    assert (reach.reachable, reach.rows) == (False, 3)


def test_the_nearest_reachable_is_named_with_why():
    """(4, 0) has no row; of the reachable (0, 0), (1, 2), (4, 4), (3.5, 4) the distances are 4, sqrt(13), 4 and sqrt(16.25)."""
    reach = region.nearest_reachable(TARGETS, {"humor": 4, "wit": 0})
    assert (reach.reachable, reach.nearest, reach.nearest_rows, reach.distance) == (False, {"humor": 1, "wit": 2}, 5, pytest.approx(13**0.5))
    assert reach.reason == "0 training rows have ratings within 0.5 of these; 5 make a setting reachable"


def test_of_equally_near_ones_the_one_with_more_rows():
    """(2, 4) is 1.5 from (3.5, 4), which 7 rows are near; (0, 0.5) lies between (0, 0) and (0, 1), and both are near it."""
    assert region.nearest_reachable(TARGETS, {"humor": 2, "wit": 4}).nearest == {"humor": 3.5, "wit": 4}
    assert region.nearest_reachable(TARGETS, {"humor": 0, "wit": 0.5}).rows == 12
    even = Targets(STEERING, ((0, 0), (4, 0)), (5, 8), {})
    assert region.nearest_reachable(even, {"humor": 2, "wit": 0}).nearest == {"humor": 4, "wit": 0}


def test_free_attributes_and_unrated_ones():
    """With wit free all rows with humor 4 count, those without a rating of wit too: 4 + 9 + 3."""
    assert region.nearest_reachable(TARGETS, {"humor": 4}).rows == 16
    unrated = Targets(STEERING, ((0, None),), (50,), {})
    reach = region.nearest_reachable(unrated, {"wit": 2})
    assert (reach.reachable, reach.nearest) == (False, None) and reach.reason.endswith("and none is")


def test_marks_along_a_slider():
    marks = region.along(TARGETS, "wit", {"humor": 0})
    assert [(mark.requested["wit"], mark.reachable) for mark in marks] == [(0, True), (1, False), (2, False), (3, False), (4, False)]


def test_unknown_and_empty_requests_are_refused():
    with pytest.raises(ValueError, match="the model has no attribute mirth; it has: humor, wit"):
        region.nearest_reachable(TARGETS, {"mirth": 1})
    with pytest.raises(ValueError, match="no attribute is set"):
        region.nearest_reachable(TARGETS, {})
