"""A real SLURM cluster of four nodes for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

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
