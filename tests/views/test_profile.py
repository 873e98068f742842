"""Where a step's seconds go: the table and the chart, from the events of made-up steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.app import synthetic, synthetic_rollouts
from workbench.terminal import profile as profiling
from workbench.views import History, catalogue, profile

STEP = {
    "step_time_s": 10.0,
    "time_generate_s": 4.0,
    "time_refit_s": 0.5,
    "time_train_s": 5.0,
    "time_data_s": 0.1,
    "time_forward_backward_s": 4.0,
    "time_optimizer_s": 0.4,
    "time_reward_s": 0.5,
    "decode_tokens_per_s": 100.0,
    "batch_occupancy": 0.5,
    "server_critic_infer_s": 1.0,
    "wire_critic_infer_s": 0.25,
}


def history(*steps: dict[str, float]) -> History:
    made = History()
    made.extend({"kind": "step", "time": 10.0 * n, "step": n, "metrics": metrics} for n, metrics in enumerate(steps, 1))
    return made


def seconds(found: profile.Profile | None) -> dict[str, float]:
    assert found is not None
    return {phase.name: round(phase.seconds, 6) for phase in found.phases}


def test_phases_within_others_are_not_counted_twice() -> None:
    found = profile.of(history(STEP))
    assert found is not None
    assert [(phase.name, phase.within) for phase in found.phases] == [
        *(("train", ""), ("data", "train"), ("forward_backward", "train"), ("optimizer", "train")),
        *(("generate", ""), ("refit", "generate"), ("reward", ""), ("other", "")),
    ]
    assert seconds(found)["other"] == 0.5  # 10 - 4 - 5 - 0.5
    assert sum(phase.share for phase in found.phases if not phase.within) == pytest.approx(1)
    assert found.engine == {"decode_tokens_per_s": 100.0, "batch_occupancy": 0.5}
    assert found.servers == [profile.Server("critic_infer", 1.0, 0.25)]


def test_means_are_over_all_steps_or_the_newest() -> None:
    slow = {**STEP, "step_time_s": 30.0, "time_generate_s": 24.0, "decode_tokens_per_s": 20.0}
    made = history(slow, {name: value for name, value in STEP.items() if name != "time_reward_s"}, STEP)
    assert seconds(profile.of(made))["generate"] == round(32 / 3, 6)
    assert seconds(profile.of(made))["reward"] == round(1.0 / 3, 6)  # a step without the phase spent no time in it
    newest = profile.of(made, last=2)
    assert newest is not None
    assert (newest.steps, newest.step_s, seconds(newest)["generate"]) == (2, 10.0, 4.0)


def test_phases_side_by_side_are_told_as_an_overlap() -> None:
    found = profile.of(history({**STEP, "time_generate_s": 9.0}))
    assert seconds(found)["overlap"] == 4.5
    assert "other" not in seconds(found)


def test_no_timed_step_has_no_profile() -> None:
    assert profile.of(history()) is None
    assert profile.of(history({"loss": 1.0, "step_time_s": math.nan})) is None
    with pytest.raises(ValueError, match="no step of the run was timed"):
        profiling.of_events([])


def heights(figure: Any) -> np.ndarray:
    return sum((np.array(bar.y, float) for bar in figure.data), np.zeros(len(figure.data[0].y)))


def test_the_bars_are_as_high_as_the_steps_are_long() -> None:
    assert heights(profile.figure(history(STEP, {**STEP, "step_time_s": 12.0}))).tolist() == pytest.approx([10.0, 12.0], rel=0.01)
    many = profile.figure(history(*[STEP] * 1000))
    assert len(many.data[0].x) == profile.BARS
    assert heights(many).tolist() == pytest.approx([10.0] * profile.BARS, rel=0.01)
    assert many.data[0].customdata[0] == "steps 1–17, mean"


def test_the_live_chart_of_a_steps_time_counts_nothing_twice() -> None:
    online = next(chart for chart in catalogue.charts(synthetic_rollouts.step_metrics(1)) if chart.key == "time")
    names = {name for name, _ in online.series}
    assert {"time_train_s", "time_generate_s"} <= names
    assert not names & {"time_refit_s", "time_data_s", "time_forward_backward_s", "time_optimizer_s"}
    offline = next(chart for chart in catalogue.charts(synthetic.step_metrics(1)) if chart.key == "time")
    assert {name for name, _ in offline.series} == {"time_data_s", "time_forward_backward_s", "time_optimizer_s"}


def test_the_terminals_table() -> None:
    console = Console(width=120, record=True, force_terminal=False)
    profiling.render(profiling.of_events({"kind": "step", "time": 1.0, "step": 1, "metrics": STEP} for _ in range(1)), console)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "Train 5.000 50.0% ━━━━━━━━━━━━" in lines
    assert "Refit of the engine's weights 0.500 5.0%" in lines
    assert "Decode, tokens / s: 100.0 Decoder's slots in use: 50%" in lines
    assert "critic_infer: 1.000 s a step in the server, 0.250 s on the wire" in lines
