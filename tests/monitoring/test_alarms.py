"""Alarms sound on what they name, and on nothing else."""

from __future__ import annotations

import math

from workbench.monitoring import alarms

CALM = {"kl_per_answer": 1.0, "generation_length": 30.0, "rewards": 0.1, "entropy": 2.0, "logprob_mismatch_mean": 1e-6, "loss": 0.1}


def names(*steps: dict[str, float]) -> list[str]:
    return [alarm.name for alarm in alarms.raised(steps)]


def test_a_calm_run_has_none() -> None:
    assert names(*[CALM] * 30) == []
    assert names() == []


def test_each_alarm_has_its_cause() -> None:
    assert names({**CALM, "loss": math.nan}) == ["not a number"]
    assert names({**CALM, "kl_per_answer": 60.0}) == ["KL blow-up"]
    assert names({**CALM, "logprob_mismatch_mean": 0.1}) == ["mismatch"]


def test_length_alone_is_no_alarm_but_with_reward_it_is() -> None:
    longer = {**CALM, "generation_length": 50.0}
    assert names(*[CALM] * 5, *[longer] * 5) == []
    assert names(*[CALM] * 5, *[{**longer, "rewards": 0.5}] * 5) == ["length"]


def test_entropy_collapse_is_a_fall_to_a_fifth() -> None:
    assert names(*[CALM] * 5, *[{**CALM, "entropy": 0.5}] * 5) == []
    assert names(*[CALM] * 5, *[{**CALM, "entropy": 0.3}] * 5) == ["entropy collapse"]


def test_what_is_no_number_neither_rises_nor_falls() -> None:
    for name in ("rewards", "generation_length", "entropy"):
        steps = [*[CALM] * 5, *[{**CALM, "generation_length": 60.0, "rewards": 0.05, name: math.nan}] * 5]
        assert names(*steps) == ["not a number"], name
    assert names(*[{**CALM, "entropy": 0.0}] * 10) == []


def test_a_long_run_costs_no_more_than_a_short_one() -> None:
    """Only the first and the newest steps are looked at: a reader of every step would make a run's cost grow with its square."""

    class Counted(list):
        looked_at = 0

        def __getitem__(self, i):  # type: ignore[no-untyped-def]
            Counted.looked_at += 1
            return super().__getitem__(i)

    alarms.raised(Counted([CALM] * 10_000))
    assert Counted.looked_at < 100
