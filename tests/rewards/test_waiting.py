"""Waiting for rewards is a state with a reason: it is told, stops on request, and goes on."""

from __future__ import annotations

import pytest

from workbench.rewards.base import Waiting
from workbench.rewards.waiting import StopRequested, until_known
from workbench.rundir import beats


def test_what_is_waited_for_is_told_once_and_the_rank_does_not_seem_to_hang() -> None:
    attempts = iter([Waiting("two labels"), Waiting("two labels"), Waiting("one label"), None])
    told: list[str] = []
    before = beats._moves
    until_known(lambda: next(attempts), told.append, lambda: False, poll_s=0)
    assert told == ["waiting for two labels", "waiting for one label", ""]
    assert beats._moves >= before + 3
    until_known(lambda: None, told.append, lambda: False)
    assert len(told) == 3


def test_a_stop_ends_the_wait() -> None:
    stops = iter([False, True])
    with pytest.raises(StopRequested, match="a label"):
        until_known(lambda: Waiting("a label"), lambda reason: None, lambda: next(stops), poll_s=0)
