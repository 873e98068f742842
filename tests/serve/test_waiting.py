"""Which request is next: few changes between models, nobody forgotten."""

from __future__ import annotations

import queue
import threading

import pytest

from workbench.serve.waiting import IN_A_ROW, Waiting


def order(waiting: Waiting[str]) -> str:
    return "".join(waiting.get(0) for _ in range(len(waiting)))


def test_one_group_is_a_queue() -> None:
    waiting: Waiting[str] = Waiting()
    for item in "abc":
        waiting.put(item)
    assert order(waiting) == "abc"
    with pytest.raises(queue.Empty):
        waiting.get(0.01)


def test_a_group_is_finished_before_the_next_and_keeps_its_order() -> None:
    """Three microbatches ask the reward (lower case), then the critic (upper case): one change instead of five."""
    waiting: Waiting[str] = Waiting()
    for item in "aAbBcC":
        waiting.put(item, "critic" if item.isupper() else "reward")
    assert order(waiting) == "abcABC"
    waiting.put("d", "reward")
    waiting.put("D", "critic")
    assert order(waiting) == "Dd"  # the critic's is still there


def test_the_other_groups_turn_comes() -> None:
    waiting: Waiting[str] = Waiting()
    waiting.put("x", "other")
    assert waiting.get(0) == "x"
    for _ in range(IN_A_ROW + 10):
        waiting.put("c", "critic")
    waiting.put("r", "reward")
    assert order(waiting) == IN_A_ROW * "c" + "r" + 10 * "c"


def test_a_change_waits_a_little_for_one_of_the_same_group() -> None:
    waiting: Waiting[str] = Waiting(linger_s=600.0)
    waiting.put("a", "reward")
    assert waiting.get(0) == "a"
    waiting.put("B", "critic")
    threading.Timer(0.1, waiting.put, ("b", "reward")).start()
    assert waiting.get(0) == "b"  # as soon as it is there
    hurried: Waiting[str] = Waiting(linger_s=0.05)
    for item, group in (("a", "reward"), ("B", "critic")):
        hurried.put(item, group)
    assert [hurried.get(0), hurried.get(0)] == ["a", "B"]


def test_what_is_drained_is_gone() -> None:
    waiting: Waiting[str] = Waiting()
    waiting.put("a")
    waiting.put("b", "other")
    assert waiting.drain() == ["a", "b"]
    assert len(waiting) == 0
