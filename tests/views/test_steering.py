"""Figures of attributes."""

from __future__ import annotations

import pytest

from workbench.rundir.adherence import Adherence, Attribute, Estimate, Level
from workbench.views import steering
from workbench.views.figures import DARK, LIGHT, Theme

UNKNOWN = Estimate(None, why="measured wit does not vary over 8 rows")
SURE = Estimate(0.5, 0.25, 0.875)


def attribute(name: str) -> Attribute:
    levels = [Level(0, 4, SURE, Estimate(9.5)), Level(2, 0, UNKNOWN, Estimate(12.0)), Level(4, 4, Estimate(3.0), Estimate(30.0, 20.0, 41.0))]
    return Attribute(name, 8, True, levels, SURE, SURE, SURE, SURE, {name: SURE})


MEASURED = Adherence(
    16,
    4,
    [attribute("humor"), attribute("wit")],
    {"humor": {"humor": SURE, "wit": UNKNOWN, "length": SURE}, "wit": {"humor": SURE, "wit": SURE, "length": SURE}},
    {"humor": {"humor": 1.0, "wit": -0.25}, "wit": {"humor": -0.25, "wit": None}},
    {},
    [],
)


def test_achieved_has_the_line_and_each_attribute_with_its_intervals():
    line, humor, wit = steering.achieved(MEASURED.attributes).data
    assert (list(line.x), list(line.y)) == ([0, 4], [0, 4])
    assert (humor.name, wit.name, list(humor.x), list(humor.y)) == ("humor", "wit", [0, 4], [0.5, 3.0])
    assert (list(humor.error_y.array), list(humor.error_y.arrayminus)) == ([0.375, 0], [0.25, 0])


def test_lengths_are_in_words():
    humor, _ = steering.lengths(MEASURED.attributes).data
    assert (list(humor.y), list(humor.error_y.array), list(humor.error_y.arrayminus)) == ([9.5, 12, 30], [0, 0, 11], [0, 0, 10])


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_leakage_stands_beside_the_data(theme: Theme):
    left, right = steering.leakage(MEASURED, theme).data
    assert (list(left.x), list(left.y)) == (["humor", "wit", "length"], ["humor", "wit"])
    assert [list(row) for row in left.text] == [["0.50", "–", "0.50"], ["0.50", "0.50", "0.50"]]
    assert "does not vary" in left.customdata[0][1] and left.textfont.color == theme.ink
    assert [list(row) for row in right.text] == [["1.00", "-0.25"], ["-0.25", "–"]]


def test_without_the_data_there_is_one_matrix():
    (only,) = steering.leakage(Adherence(16, 4, MEASURED.attributes, MEASURED.leakage, {}, {}, [])).data
    assert only.z is not None


def test_reach_tells_the_levels_apart():
    (bars,) = steering.reach([0, 1, 2], [9, 5, 4], 5, chosen=2).data
    assert list(bars.customdata) == ["reachable", "reachable", "not reachable"]
    assert bars.marker.color[0] == bars.marker.color[1] != bars.marker.color[2]
    assert [colour == LIGHT.ink for colour in bars.marker.line.color] == [False, False, True]


def test_a_strip_has_the_swept_attribute_first():
    (cells,) = steering.strip("wit", [0, 2, 4], {"humor": [1, None, 2], "wit": [0, 2.25, 4]}, 0, 4).data
    assert (list(cells.y), list(cells.x)) == (["wit", "humor"], ["0", "2", "4"])
    assert [list(row) for row in cells.text] == [["0.0", "2.2", "4.0"], ["1.0", "–", "2.0"]]
