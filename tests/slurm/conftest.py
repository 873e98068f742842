"""A real SLURM cluster of four nodes for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from workbench.chaos import lab as labs
from workbench.chaos.scenarios import Stage


@pytest.fixture(scope="session")
def lab() -> Iterator[labs.Lab]:
    if why := labs.missing():
        pytest.skip(why)
    with labs.Lab() as cluster:
        os.environ.update(cluster.env)
        yield cluster
        for name in cluster.env:
            del os.environ[name]


@pytest.fixture(scope="session")
def stage(lab: labs.Lab, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("stage"), lab)
