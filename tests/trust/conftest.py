"""The second user of the machine, and a folder that both users reach."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trust import intruder as users
from tests.trust.intruder import Intruder


@pytest.fixture(scope="session")
def intruder() -> Iterator[Intruder]:
    if os.getuid() != 0:
        pytest.skip("making a second user of this machine takes root")
    with users.made() as user:
        yield user


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder where every user may write, as a site's scratch space is (mode 1777); pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="shared-"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)
