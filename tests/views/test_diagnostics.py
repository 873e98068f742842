"""Figures of a reward model's diagnostics."""

from workbench.views import diagnostics


def test_calibration_figure_has_a_point_a_bin():
    bins = [{"predicted": 0.55, "observed": 0.5, "count": 9}, {"predicted": 0.95, "observed": 1.0, "count": 1}]
    line, points = diagnostics.calibration({"calibration": bins}).data
    assert (list(line.x), list(line.y)) == ([0.5, 1], [0.5, 1])
    assert (list(points.x), list(points.y), list(points.customdata)) == ([0.55, 0.95], [0.5, 1.0], [9, 1])
    assert points.marker.size[0] > points.marker.size[1]


def test_score_figures_keep_the_sides_apart():
    found = {
        "histogram": {"edges": [0, 1, 2], "chosen": [1, 3], "rejected": [4, 0]},
        "lengths": {"tokens": [5, 2, 9], "scores": [0.5, -1.0, 2.0], "chosen": [True, False, True]},
    }
    chosen, rejected = diagnostics.histogram(found).data
    assert (chosen.name, list(chosen.x), list(chosen.y), list(rejected.y)) == ("chosen", [0.5, 1.5], [1, 3], [4, 0])
    chosen, rejected = diagnostics.lengths(found).data
    assert (list(chosen.x), list(chosen.y), list(rejected.x), list(rejected.y)) == ([5, 9], [0.5, 2.0], [2], [-1.0])


def test_ratings_figure_draws_the_line_over_the_ratings():
    line, points = diagnostics.ratings({"name": "humor", "actual": [3, 0, 4], "predicted": [2.5, 0.2, 3.9]}).data
    assert (list(line.x), list(points.y)) == ([0, 4], [2.5, 0.2, 3.9])


def test_an_ordinal_heads_figures():
    bins = [{"predicted": 0.5, "observed": 0.25, "count": 4}]
    attribute = {
        "name": "humor",
        "rated": 4,
        "actual": [1],
        "predicted": [1.5],
        "bins": [{"predicted": 1.5, "observed": 1.0, "count": 1}],
        "calibration": bins,
        "confusion": {"levels": [0, 1], "counts": [[3, 1], [0, 0]]},
    }
    means = diagnostics.ratings(attribute).data[2]
    assert (list(means.x), list(means.y)) == ([1.0], [1.5])
    line, points = diagnostics.reliability(attribute).data
    assert (list(line.x), list(points.x), list(points.y)) == ([0, 1], [0.5], [0.25])
    (cells,) = diagnostics.confusion(attribute).data
    assert [list(row) for row in cells.z] == [[0.75, 0.25], [None, None]]
    assert [list(row) for row in cells.text] == [["3", "1"], ["0", "0"]]
