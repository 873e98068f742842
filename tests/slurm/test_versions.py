"""The SLURM of other Debian releases. `make slurm-versions` runs more than this on each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backends import _slurm_nodes
from tests.slurm import test_jobs
from tests.slurm.test_jobs import start
from workbench import api
from workbench.chaos.lab import Lab

__all__ = ["start"]


@pytest.mark.parametrize(
    ("lab", "version"),
    [
        pytest.param({"release": "bullseye"}, "20.11.", marks=pytest.mark.slow),
        ({"release": "trixie"}, "24.11."),
        pytest.param({"release": "sid"}, "2", marks=pytest.mark.slow),
    ],
    indirect=["lab"],
    ids=["bullseye", "trixie", "sid"],
)
def test_a_gang_on_the_slurm_of_another_release(start: Callable[..., api.Run], lab: Lab, version: str) -> None:
    assert _slurm_nodes.survey(0).title.startswith(f"SLURM {version}")
    assert _slurm_nodes.survey(0).title.removeprefix("SLURM ") in lab.run("scontrol", "show", "config")
    test_jobs.test_a_gang_of_two_nodes(start, lab)
