"""What the PPO demo's bench makes of runs' events."""

from __future__ import annotations

import pytest

from workbench.bench.ppo import outcome, spread


def events(last_reward: float) -> list[dict]:
    def validation(step: int, reward: float, response: str) -> dict:
        samples = [{"prompt": "Why?", "response": response}]
        return {"kind": "validation", "time": 60.0 * step, "step": step, "metrics": {"rewards": reward}, "samples": samples}

    steps = [{"kind": "step", "time": 60.0 * i, "step": i, "metrics": {"kl_per_answer": kl}} for i, kl in ((1, 0.0), (2, 7.5), (3, 6.0))]
    return [validation(0, 0.25, "long"), *steps, validation(3, last_reward, "short"), {"kind": "end", "time": 240.0}]


def test_the_rise_is_set_against_the_spread_of_the_seeds() -> None:
    first, second = (outcome("run", events(reward)) for reward in (0.75, 0.5))
    assert (first.rise, second.rise) == (0.5, 0.25)
    assert spread([first, second]) == pytest.approx(0.25)
    assert first.highest_kl == 7.5
    assert first.minutes == 4
    assert first.samples == [("Why?", "long", "short")]
