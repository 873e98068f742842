"""Algorithms that learn from their own rollouts, on a tiny model through the local backend."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests import models
from tests.algorithms.runs import begun, held_out, steps
from tests.hold import Hold
from tests.waiting import until, until_step
from workbench import api
from workbench.rundir import rollouts
from workbench.rundir.store import State

PPO = ("algorithm=ppo", "algorithm.critic.global_batch_size=8", "algorithm.critic.lr=1e-3", "algorithm.max_steps=6", "checkpoint.every_steps=2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tied_model: Path) -> api.Run:
    """PPO with everything in one process, to its end."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        run = begun(tmp_path_factory.mktemp("undisturbed"), monkeypatch, tied_model, *PPO)
        assert run.wait(240).state == State.COMPLETED, run.status.message
    return run


def processes(*ending: str) -> list[psutil.Process]:
    """Those whose command line ends so; without a child that is about to become another program."""
    alike = {p.pid: p for p in psutil.process_iter(["cmdline", "ppid"]) if tuple(p.info["cmdline"] or ())[-len(ending) :] == ending}
    return [p for p in alike.values() if p.info["ppid"] not in alike]


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce", "grpo"])
def test_a_run_keeps_every_rollout(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path, request: pytest.FixtureRequest
) -> None:
    samples, last = {"ppo": (1, 6), "reinforce": (4, 3), "grpo": (8, 3)}[algorithm]
    if algorithm == "ppo":
        run = request.getfixturevalue("undisturbed")
    else:
        run = begun(tmp_path, monkeypatch, tied_model, f"algorithm={algorithm}", f"algorithm.samples_per_prompt={samples}")
    assert run.wait(240).state == State.COMPLETED, run.status.message
    told = steps(run)
    assert len(told) == last
    assert rollouts.steps(run.dir) == [*range(1, last + 1)]
    for step, metrics in enumerate(told, 1):
        kept = rollouts.of_step(run.dir, step)
        assert len(kept) == 8
        assert kept.reward.mean() == pytest.approx(metrics["rewards"])
        assert kept.groupby("prompt_id").size().tolist() == [samples] * (8 // samples)
        assert metrics["logprob_mismatch_max"] < 1e-4  # the engine's log-probabilities are the trainer's
    assert told[0]["init_policy_kl"] == pytest.approx(0, abs=1e-4)  # before the first update the policy is the reference
    first = rollouts.one(run.dir, 1, 0)
    assert first is not None
    assert len(first["pieces"]) == len(first["tokens"]) == len(first["advantages"]) == first["response_tokens"]
    assert (first["values"] is None) == (algorithm != "ppo")
    assert first["reward/short"] == pytest.approx(-len(first["response"]) / 50)
    assert {"rewards", "reward/short", "response_lengths"} <= held_out(run)[0].keys()


def test_ppo_of_two_stages_of_two_ranks_gives_what_one_rank_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At TP2 x PP2 answers come from a copy of the whole depth on each stage, taken from one queue; the steps are those of one rank."""
    words = ("algorithm=ppo", "algorithm.max_steps=2", "algorithm.critic.global_batch_size=8")
    layout = ("model.tensor_parallel=2", "model.pipeline_parallel=2", "backend.ranks_per_node=4")
    shared = begun(tmp_path / "shared", monkeypatch, models.save(tmp_path / "even", num_hidden_layers=2), *words, *layout)
    whole = begun(tmp_path / "whole", monkeypatch, tmp_path / "even", *words)
    for run in (shared, whole):
        assert run.wait(240).state == State.COMPLETED, run.status.message
    for ours, theirs in zip(steps(shared), steps(whole), strict=True):
        for name in ("rewards", "response_lengths", "loss", "critic_loss", "grad_norm", "entropy"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name


def test_ppo_behind_servers_survives_their_deaths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path, hold: Hold, undisturbed: api.Run
) -> None:
    """Critic and reward behind PyTriton learn what colocated ones do; kill -9 of either, in turn, loses no step and applies none twice."""
    hold.at(2)
    run = begun(tmp_path, monkeypatch, tied_model, *PPO, "algorithm.served=[critic,reward]")
    for role, step in (("critic", 2), ("reward", 4)):
        hold.at(step)
        until_step(run, step)
        victims = processes(str(run.dir.path), role)
        assert len(victims) == 1, f"{role}: {run.status}"
        victims[0].kill()
    hold.release()
    assert run.wait(240).state == State.COMPLETED, run.status.message
    told, expected = steps(run), steps(undisturbed)
    assert len(told) == len(expected) == 6
    for ours, theirs in zip(told, expected, strict=True):
        for name in ("rewards", "critic_loss", "values_mean", "loss", "init_policy_kl"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name


def test_a_killed_policy_takes_its_critic_back_to_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path, hold: Hold, undisturbed: api.Run
) -> None:
    """kill -9 of the policy's rank after a checkpoint: the gang restarts from it, the critic server goes back to the same step, and the end is the same."""
    hold.at(3)
    run = begun(tmp_path, monkeypatch, tied_model, *PPO, "algorithm.served=[critic]", "backend.max_restarts=1")
    until_step(run, 3)
    victims = processes("workbench.processes.worker", str(run.dir.path))
    assert len(victims) == 1, run.status
    victims[0].kill()
    hold.release()
    assert run.wait(240).state == State.COMPLETED, run.status.message
    assert run.status.attempt == 2
    by_step = {event["step"]: event["metrics"] for event in run.events() if event["kind"] == "step"}
    assert sorted(by_step) == [1, 2, 3, 4, 5, 6]
    for step, expected in enumerate(steps(undisturbed), 1):
        for name in ("rewards", "critic_loss", "values_mean", "loss", "init_policy_kl"):
            assert by_step[step][name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), (step, name)


def test_a_paused_run_waits_and_a_change_holds_from_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path, hold: Hold
) -> None:
    hold.at(1)
    run = begun(tmp_path, monkeypatch, tied_model, "algorithm=ppo", "algorithm.max_steps=6")
    until_step(run, 1)
    run.pause()
    hold.release()
    until(lambda: any(e["kind"] == "phase" and e["message"].startswith("paused") for e in run.events()), run=run)
    with pytest.raises(ValueError, match="gamma cannot be changed"):
        run.change(gamma=0.5)
    run.change(kl_coefficient=0.5)
    until(
        lambda: any(e["kind"] == "control" and e["request"] == "set" for e in run.events()),
        what="the change, which is taken during the pause",
        run=run,
    )
    assert len(steps(run)) == 1
    run.unpause()
    assert run.wait(240).state == State.COMPLETED, run.status.message
    told = [metrics["kl_coefficient"] for metrics in steps(run)]
    assert told == [0.01] + [0.5] * 5
