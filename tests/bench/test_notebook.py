"""The benchmark of the live widgets: its arithmetic. What it measures is driven in tests/notebook/test_jupyterlab.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.app import synthetic
from workbench.bench import notebook

FINE = notebook.Measured(100_000, 0.01, 0.05, 20, 0.3, 0.9, 0.0, 0.4, 0.9)


@pytest.mark.parametrize(
    ("changed", "good"),
    [({}, True), ({"append_s": 0.03}, False), ({"redraw_s": 0.2}, False), ({"kernel_cores": 0.6}, False), ({"age_p99_s": 2.5}, False)],
)
def test_one_figure_above_its_limit_is_enough(changed: dict[str, float], good: bool) -> None:
    assert replace(FINE, **changed).good is good


def test_the_first_step_is_there_before_anybody_looks(tmp_path) -> None:
    """Steps 2 and 3 are seen together, 0.5 s after the later one."""
    run = synthetic.make(tmp_path, steps=3, total=3)
    times = [event["time"] for event in run.events() if event["kind"] == "step"]
    seen = [(times[0], 1.0), (times[2] + 0.5, 3.0)]
    assert notebook.ages_of(run, seen) == pytest.approx([times[2] + 0.5 - times[1], 0.5])
