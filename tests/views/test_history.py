"""Histories of a run's events, across a resume and in pieces."""

import math
import random

import numpy as np
import pytest

from tests.views.events import step
from workbench.views import History
from workbench.views.history import HistoryCursor


def test_resumed_run_has_one_continuous_history():
    """Steps 1..5 one second apart; resumed an hour later from step 3: 4 and 5 are done again, the pause is no training time."""
    history = History()
    history.extend([{"kind": "state", "time": 100.0, "state": "running", "step": 0, "total_steps": 9}])
    history.extend(step(n, 100.0 + n, loss=n / 10) for n in range(1, 6))
    history.extend([{"kind": "validation", "time": 105.5, "step": 5, "metrics": {"loss": 1.0}}])
    before = history.cursor
    history.extend([{"kind": "state", "time": 3700.0, "state": "running", "step": 3, "total_steps": 9}])
    assert history.steps == [1, 2, 3]
    assert history.validations == []
    history.extend([step(4, 3701.0, loss=7.0), step(5, 3702.0, loss=8.0)])
    assert history.steps == [1, 2, 3, 4, 5]
    assert history.metrics["loss"] == [0.1, 0.2, 0.3, 7.0, 8.0]
    assert history.elapsed_s == [1, 2, 3, 4, 5]
    assert history.cursor.generation == before.generation + 1
    assert history.total_steps == 9


def test_resume_that_loses_nothing_keeps_the_generation():
    history = History()
    history.extend([step(1, 1.0, loss=1.0), {"kind": "state", "time": 9.0, "step": 1, "total_steps": 5}, step(2, 10.0, loss=1.0)])
    assert history.cursor.generation == 0
    assert history.elapsed_s == [0, 1]


def test_a_step_written_twice_counts_once():
    history = History()
    history.extend([step(1, 1.0, loss=1.0), step(2, 2.0, loss=2.0), step(2, 3.0, loss=5.0)])
    assert history.steps == [1, 2]
    assert history.metrics["loss"] == [1.0, 5.0]


def test_late_and_missing_metrics_fill_with_nan():
    history = History()
    history.extend([step(1, 1.0, loss=1.0), step(2, 2.0, loss="nan", kl=0.5), step(3, 3.0, kl="inf", note="text")])
    assert history.metrics.keys() == {"loss", "kl"}
    np.testing.assert_equal(history.metrics["loss"], [1.0, math.nan, math.nan])
    np.testing.assert_equal(history.metrics["kl"], [math.nan, 0.5, math.inf])


def test_history_in_pieces_equals_history_at_once():
    rng = random.Random(0)
    events = [step(n, float(n), loss=rng.random()) for n in range(1, 50)]
    events.insert(30, {"kind": "state", "time": 31.0, "step": 20, "total_steps": 60})
    whole, pieces = History(), History()
    whole.extend(events)
    for event in events:
        pieces.extend([event])
    assert whole.frame().equals(pieces.frame())
    assert whole.cursor == pieces.cursor


def test_unknown_kind_is_passed_over():
    history = History()
    history.extend([{"kind": "from_the_future", "time": 1.0}, {"kind": "control", "time": 2.0, "request": "stop"}])
    assert history.steps == []


@pytest.mark.parametrize("words", ["", "1.2.3", "1.2.3.x", "-1.2.3.4", "1.2.3.4.5", "1.2.3.99999999999999999999", "١.2.3.4"])
def test_cursor_refuses(words):
    with pytest.raises(ValueError, match="expected a cursor"):
        HistoryCursor.parse(words)


def test_cursor_round_trip():
    assert HistoryCursor.parse(str(HistoryCursor(1, 2, 3, 4))) == HistoryCursor(1, 2, 3, 4)


def test_history_keeps_the_diagnostics_of_a_validation():
    history = History()
    history.extend([{"kind": "validation", "time": 1.0, "step": 0, "metrics": {"ece": 0.1}, "diagnostics": {"kind": "ranking"}}])
    history.extend([{"kind": "validation", "time": 2.0, "step": 5, "metrics": {}}])
    assert [v.diagnostics for v in history.validations] == [{"kind": "ranking"}, None]
