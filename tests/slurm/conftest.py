"""A real SLURM cluster of four nodes for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends import stand_in
from tests.waiting import until
from workbench import api
from workbench.chaos import lab as labs
from workbench.chaos.scenarios import Stage


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[labs.Lab]:
    """Of this machine's SLURM, of that of the Debian release which WORKBENCH_SLURM names, or as a test's parameter says."""
    if why := labs.missing():
        pytest.skip(why)
    settings = getattr(request, "param", {"release": os.environ.get("WORKBENCH_SLURM", "")})
    with labs.Lab(**settings) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.env.items():
            patch.setenv(name, value)
        yield cluster


@pytest.fixture(scope="session")
def stage(lab: labs.Lab, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"), lab)


@pytest.fixture
def start(tmp_path: Path, lab: labs.Lab) -> Iterator[Callable[..., api.Run]]:
    """Starts a job of small scripts; what is left of them at the test's end is killed."""
    runs: list[api.Run] = []

    def launch(script: str, root: Path = tmp_path, name: str = "stand-in", **settings: Any) -> api.Run:
        words = {"time_limit": "10", "nodes_timeout_s": 60, "exclusive": True, **settings}
        runs.append(stand_in.start(root, script, name, backend="slurm", **words))
        return runs[-1]

    yield launch
    for run in runs:
        if not run.status.state.ended:
            run.kill()
    until(lambda: not lab.run("squeue", "-h"))
