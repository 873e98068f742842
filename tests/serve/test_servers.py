"""Servers of several processes and of several models, in real runs of PPO: their numbers are those of the policy's own processes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from tests.algorithms.runs import begun, steps
from tests.trust.intruder import Intruder
from tests.trust.sockets import knocked
from tests.waiting import until
from workbench import api
from workbench.models.endpoint import BadRequest
from workbench.rundir.store import State
from workbench.serve.client import Client
from workbench.terminal.cli import app

STEPS = 3
BEGUN: list[api.Run] = []
CRITIC = "{source: %s, tensor_parallel: %d}"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """A failed test leaves no run behind."""
    yield
    for run in BEGUN:
        if not run.status.state.ended:
            run.kill()
    BEGUN.clear()


def start(folder: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path, tiny_reward: Path, *overrides: str) -> api.Run:
    rewards = f"{{short: {{program: {folder / 'mine.py'}:short}}, liked: {{model: {tiny_reward}, weight: 10}}}}"
    critic = ("algorithm.critic.global_batch_size=8", "algorithm.critic.lr=1e-3")
    length = f"algorithm.max_steps={STEPS}"
    BEGUN.append(begun(folder, monkeypatch, tied_model, "algorithm=ppo", f"algorithm.rewards={rewards}", length, *critic, *overrides))
    return BEGUN[-1]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tied_model: Path, tiny_reward: Path) -> list[dict[str, float]]:
    """The steps of a run that computes everything in one process."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        run = start(tmp_path_factory.mktemp("alone") / "run", monkeypatch, tied_model, tiny_reward)
        assert run.wait(240).state == State.COMPLETED, run.status.message
    return steps(run)


def ranks(run: api.Run, role: str) -> dict[int, psutil.Process]:
    """A server's processes by their rank."""
    found = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-3:] == ["workbench.processes.server", str(run.dir.path), role]]
    return {int(process.environ()["RANK"]): process for process in found}


def same(run: api.Run, expected: list[dict[str, float]]) -> None:
    assert run.wait(240).state == State.COMPLETED, run.status.message
    told = steps(run)
    assert len(told) == len(expected) == STEPS
    for ours, theirs in zip(told, expected, strict=True):
        for name in ("rewards", "reward/liked", "critic_loss", "critic_grad_norm", "values_mean", "loss", "init_policy_kl"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name


def test_a_critic_of_two_tensor_parallel_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path, tiny_reward: Path, alone: list[dict[str, float]], intruder: Intruder
) -> None:
    """It learns what one process does; wrong requests are refused and both processes live on; kill -9 of its rank 1 loses nothing.

    Another user who tries every port is told nothing, and changes nothing.
    """
    words = ("algorithm.served=[critic]", "algorithm.critic.processes=2", f"algorithm.critic.model={CRITIC % (tied_model, 2)}")
    run = start(tmp_path, monkeypatch, tied_model, tiny_reward, *words)
    run.pause()  # before the first step
    until(lambda: any(e["kind"] == "phase" and e["message"].startswith("paused") for e in run.events()), run=run)
    first = ranks(run, "critic")
    assert sorted(first) == [0, 1], run.status
    with knocked(intruder, run) as places:
        assert {process.pid for process in first.values()} & {process.pid for process in places.values()}
    client = Client(run.dir.path, "critic")
    lengths = {"sequence_lengths": np.array([4], np.int32), "prompt_lengths": np.array([2], np.int32)}
    good = {"tokens": np.full((1, 4), 5, np.int32), **lengths, "temperatures": np.ones(1, np.float32)}
    for changes, said in (
        ({"tokens": np.full((1, 4), 4000, np.int32)}, "tokens lie between 0 and"),
        ({"prompt_lengths": np.array([4], np.int32)}, "prompt_lengths: from 1 to below"),
        ({"prompt_lengths": np.array([1, 1], np.int32)}, "prompt_lengths has 2 entries for 1 rows"),
        ({"temperatures": np.zeros(1, np.float32)}, "temperatures: above 0"),
    ):
        with pytest.raises(BadRequest, match=said):
            client.call("critic_infer", **{**good, **changes}).result(240)
    with pytest.raises(BadRequest, match="comes before step"):  # refused by the critic itself, on both ranks alike
        client.call("critic_train", step=np.array([99]), **good, returns=np.zeros((1, 4), np.float32), values=np.zeros((1, 4), np.float32)).result(
            240
        )
    with pytest.raises(BadRequest, match="asked to save step 98"):
        client.call("critic_save", step=np.array([98])).result(240)
    assert client.call("critic_infer", **good).result(240)["values"].shape == (1, 4)
    client.close()
    told = r"critic server: (ready|busy with critic_\w+); critic_restore 1, critic_infer \d+.*; 6 refused; 2 processes on"  # written once a second
    until(lambda: re.search(told, CliRunner().invoke(app, ["show", run.id], catch_exceptions=False).stdout))
    assert all(process.is_running() for process in first.values()), run.status
    first[1].kill()
    until(lambda: len(list(run.dir.logs.glob("critic-1.*.log"))) == 2)  # the gang of both is started again
    run.unpause()
    same(run, alone)


def test_critic_and_reward_model_in_one_set_of_processes_that_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path, tiny_reward: Path, alone: list[dict[str, float]]
) -> None:
    """Two data-parallel processes hold both models, of which one at a time is on the accelerator."""
    words = ("algorithm.served=[critic_reward]", "algorithm.critic.processes=2", "algorithm.swap_to_host=always")
    run = start(tmp_path, monkeypatch, tied_model, tiny_reward, *words)
    same(run, alone)
    said = json.loads((run.dir.path / "health" / "critic_reward.json").read_text())
    assert said["here"] in ("critic", "reward")
    calls = {name: counts["calls"] for name, counts in said["endpoints"].items()}
    assert calls["critic_train"] == STEPS and calls["critic_infer"] >= STEPS and calls["reward_model"] > STEPS
    # A step asks the reward model, then the critic, which also learns: two changes; a third where the critic's question comes first and the
    # reward model was asked last, as after the validation before the first step. Restoring, both validations and saving are one each.
    assert STEPS <= said["swaps"] <= 2 * STEPS + 5
    assert said["host_bytes"] > 4 * 100_000 and said["swapped_s"] > 0
    assert said["processes"] == 2
