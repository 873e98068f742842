"""Numbers, times and names for people."""

import math

import pytest

from workbench.rundir.store import State
from workbench.views import text


def test_eta_is_the_median_pace_of_what_is_left():
    """Paces 2, 2, 20 (a checkpoint), 2 seconds: the median is 2, and 95 steps are left."""
    assert text.eta_s([1, 2, 3, 4, 5], [0, 2, 4, 24, 26], 100) == 190
    assert text.eta_s([1], [0], 100) is None
    assert text.eta_s([1, 2], [0, 1], 0) is None
    assert text.eta_s([9, 10], [0, 1], 10) == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.69314, "0.6931"), (12.3456, "12.35"), (1234.5, "1,234"), (5e-5, "5e-5"), (0.0, "0"), (-0.25, "−0.2500"), (math.nan, "nan"), (None, "–")],
)
def test_number(value, words):
    assert text.number(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(48.4, "48 s"), (725, "12 m 05 s"), (13_320, "3 h 42 m"), (190_000, "2 d 4 h"), (None, "–"), (math.inf, "–")]
)
def test_duration(seconds, words):
    assert text.duration(seconds) == words


def test_every_state_has_a_colour_and_an_icon():
    assert set(State) == set(text.STATE_COLOURS) == set(text.STATE_ICONS)


def test_logs_are_named_by_what_they_are_of():
    assert [text.log_title(name) for name in ("actor-0.2.log", "driver.1.log", "slurm.17.0.log", "slurm.17.2.log", "pbs.1.log")] == [
        "actor 0 · attempt 2",
        "driver · attempt 1",
        "SLURM job 17",
        "SLURM job 17 · restart 2",
        "pbs · attempt 1",
    ]
