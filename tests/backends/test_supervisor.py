"""What the supervisor makes of nodes that do not come, and of several deaths."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest

from tests.backends import stand_in
from workbench.backends import local, supervisor
from workbench.backends.supervisor import Failure


def test_a_gang_that_waits_for_its_nodes_ends_when_it_is_not_wanted_any_more(tmp_path: Path) -> None:
    asked = itertools.count(1)
    with local.gang(stand_in.task(stand_in.store.create(tmp_path, "waits", "{}"), "steps(1)")) as client:
        two = stand_in.task(stand_in.store.create(tmp_path, "waits", "{}"), "steps(1)", num_nodes=2, nodes_timeout_s=600)
        with pytest.raises(supervisor.GangEnded):
            supervisor.supervise(client, two, lambda attempt: next(asked) < 5)
    assert next(asked) == 6


@pytest.mark.parametrize("cause", [Failure(1, "b", None, 3.0), Failure(1, "b", -signal.SIGKILL, 3.0), Failure(1, "b", 1, 1.0)])
def test_the_first_death_is_the_cause_though_a_nodes_clock_is_ahead(cause: Failure) -> None:
    """A lost node's death is noticed late, and a killed rank's node may be seconds ahead; neither is what an error elsewhere brings about."""
    others = [Failure(0, "a", 1, 2.0, "Connection closed by peer"), Failure(2, "a", -signal.SIGABRT, 2.1)]
    assert min([*others, cause], key=lambda failure: failure.order) == cause
