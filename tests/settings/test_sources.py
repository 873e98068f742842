"""Where files lie."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from workbench.settings.sources import cache_root


def test_without_a_home_the_message_names_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container whose user is in no password file."""

    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("WORKBENCH_CACHE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(ValueError, match="no home folder .*Set WORKBENCH_CACHE to a folder"):
        cache_root()
    monkeypatch.setenv("WORKBENCH_CACHE", "~nobody-here/cache")
    with pytest.raises(ValueError, match="WORKBENCH_CACHE=~nobody-here/cache"):
        cache_root()
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert cache_root() == tmp_path and "HOME" not in os.environ
