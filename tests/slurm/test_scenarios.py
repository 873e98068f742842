"""Real runs of the tiny model on the real SLURM, disturbed in every way of workbench/chaos/scenarios."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from workbench.chaos.lab import Lab
from workbench.chaos.scenarios import LIMIT, SCENARIOS, Scenario, Stage


@pytest.fixture
def repaired(lab: Lab) -> Iterator[None]:
    yield
    for name in lab.failed:
        lab.repair_node(name)


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("repaired")
@pytest.mark.parametrize("scenario", [pytest.param(s, id=s.name, marks=() if s.in_ci else pytest.mark.slow) for s in SCENARIOS])
def test_a_disturbed_run_ends_as_an_undisturbed_one_or_says_why(scenario: Scenario, stage: Stage) -> None:
    told = stage.play(scenario)
    assert told.state == scenario.ends, told
    assert scenario.says in told.message, told
    assert told.difference <= LIMIT, told
