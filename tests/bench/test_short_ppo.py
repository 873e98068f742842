"""What the measurements of placements and of communication make of real short runs."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from workbench.bench import communication, refit, short_ppo
from workbench.bench.placement import PHASES, measured
from workbench.terminal.cli import app


def test_both_placements_are_run_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_ppo, "ROLLOUTS", 8)
    result = CliRunner().invoke(app, ["bench", "placement", "--rounds", "1", "--steps", "1", "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    colocated, served = json.loads(result.stdout)
    assert (colocated["placement"], served["placement"]) == ("colocated", "served")
    for each in (colocated, served):
        assert len(each["seconds"]) == 1 and each["seconds"][0] >= each["phases"]["generate"] > 0
    assert colocated["phases"]["critic_wait"] < 0.01  # its lesson is over when the policy's begins


def test_a_steps_share_on_the_wire_grows_with_the_links_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run through relays that add half a second a round trip: critic_infer, reward_model and critic_train, one request each in a step."""
    monkeypatch.setattr(short_ppo, "ROLLOUTS", 8)
    with short_ppo.model_folder(short_ppo.TINY) as source:
        found = communication.measure(source, "slow", 1, one_way_s=0.25)
    assert all(found.wire_s[name] > 0.5 and found.server_s[name] > 0 for name in communication.ENDPOINTS)
    assert found.waiting > 0.1 / found.step_s
    assert found.record()["on_the_wire"] == pytest.approx(sum(found.wire_s.values()) / found.step_s)


def test_refits_of_every_engine_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each engine runs, `rollout.name=hf` among them; the default shares the policy's weights, and copying them costs more than nothing."""
    monkeypatch.setattr(short_ppo, "ROLLOUTS", 8)
    result = CliRunner().invoke(app, ["bench", "refit", "--steps", "1", "--json"], catch_exceptions=False)
    found = {each["engine"]: each for each in json.loads(result.stdout)}
    assert result.exit_code == any(each["share"] > refit.LIMIT for each in found.values()), result.stderr
    assert list(found) == list(refit.ENGINES)
    assert found["megatron"]["share"] < refit.LIMIT
    assert all(found["megatron"]["refit_s"] < found[name]["refit_s"] < found[name]["step_s"] for name in refit.ENGINES if name != "megatron")


def test_medians_of_steps() -> None:
    steps = [
        {"step_time_s": 2.0, "time_generate_s": 1.0, "time_reward_s": 0.5, "wire_critic_infer_s": w, "server_critic_infer_s": 0.25}
        for w in (0.1, 0.2)
    ]
    assert measured("m", "served", [steps, steps[:1]]).seconds == [2.0, 2.0]
    assert measured("m", "served", [steps]).phases == {**dict.fromkeys(PHASES, 0.0), "generate": 1.0, "reward": 0.5}
    share = communication.share("loopback", steps)
    assert share.on_the_wire == pytest.approx(0.075)
    assert share.waiting == pytest.approx(0.25)
    assert share.server_s == {"critic_infer": 0.25, "reward_model": 0.0, "critic_train": 0.0}
