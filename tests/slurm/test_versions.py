"""The SLURM of other Debian releases, and slurmdbd's answers. `make slurm-versions` runs more than this on each of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.slurm.jobs import complete_two_nodes
from tests.waiting import until
from workbench import api
from workbench.backends import _slurm_nodes, slurm
from workbench.backends.base import Job
from workbench.chaos import releases
from workbench.chaos.lab import Lab


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
    complete_two_nodes(start, lab)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lab", [pytest.param({"accounting": True, "release": release}, id=release or "bookworm") for release in releases.CGROUP_CONF], indirect=True
)
def test_jobs_that_the_controller_forgot_are_asked_of_the_accounting(lab: Lab) -> None:
    conf = lab.folder / "slurm.conf"
    conf.write_text(conf.read_text().replace("MinJobAge=600", "MinJobAge=2"))
    lab.run("scontrol", "reconfigure")
    fails, cancelled = (lab.run("sbatch", "--parsable", "--output=/dev/null", f"--wrap={command}") for command in ("exit 3", "sleep 600"))
    until(lambda: lab.run("squeue", "-h", "-t", "running", "-j", cancelled), 30)
    lab.run("scancel", cancelled)
    until(lambda: not lab.run("squeue", "-h", "--states=all"), 120)
    told = {job: slurm.look(Job("slurm", job, "", time.time())) for job in (fails, cancelled)}
    assert told[fails].ended == f"SLURM job {fails} ended as FAILED (exit code 3:0)"
    assert (told[cancelled].ended, told[cancelled].cancelled) == (f"SLURM job {cancelled} was cancelled by 0 (scancel)", True)
