"""Runs of online DPO and rejection sampling on a tiny model: what is learnt is what the files tell, the reward rises, kills and layouts change nothing."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import psutil
import pytest

from tests import models
from tests.algorithms.runs import begun, held_out, steps
from tests.hold import Hold
from workbench import api
from workbench.rundir import rollouts
from workbench.rundir.store import State

VOWELS = "def vowels(prompt, response, row): return sum(c in 'aeiou' for c in response) / (1 + len(response))\n"
STEPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("best")
    models.save(made / "model", num_hidden_layers=2, tie_word_embeddings=True)
    (made / "toy.py").write_text(VOWELS)
    return made


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, *overrides: str) -> api.Run:
    """Eight prompts a step with four answers each, learnt from in two updates; the learning rate does not depend on how many steps there are."""
    words = (
        f"algorithm={algorithm}",
        "seed=3",
        f"algorithm.rewards={{short: {{weight: 0}}, vowels: {{program: {folder / 'toy.py'}:vowels}}}}",
        "algorithm.rollout_batch_size=32",
        "algorithm.samples_per_prompt=4",
        "algorithm.global_batch_size=4",
        "algorithm.lr=1e-2",
        "algorithm.min_lr_ratio=1",
        "checkpoint.every_steps=2",
        "checkpoint.asynchronous=false",
    )
    return begun(folder, monkeypatch, folder / "model", *words, *overrides)


@pytest.fixture(scope="module", params=["online_dpo", "rejection_sampling"])
def algorithm(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def undisturbed(algorithm: str, folder: Path) -> api.Run:
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = run(folder, monkeypatch, algorithm, f"algorithm.max_steps={STEPS}", f"name={algorithm}")
        assert made.wait(240).state == State.COMPLETED, made.status.message
    return made


def curve(run: api.Run) -> dict[int, tuple[float, ...]]:
    names = ("loss", "grad_norm", "rewards", "rewards_best", "prompts_tied", "generation_length")
    return {event["step"]: tuple(event["metrics"][name] for name in names) for event in run.events() if event["kind"] == "step"}


def answers(run: api.Run, count: int) -> list[list[rollouts.Rollout]]:
    """Of each of the first steps."""
    return [rollouts.whole_step(run.dir, step) for step in range(1, count + 1)]


def tokens(run: api.Run, count: int) -> list[list[list[int]]]:
    return [[each["tokens"] for each in step] for step in answers(run, count)]


def test_what_is_learnt_is_what_the_files_tell(algorithm: str, undisturbed: api.Run) -> None:
    """The advantages in the files mark, of each prompt, the first of the best answers, and for DPO the first of the worst."""
    in_pairs = algorithm == "online_dpo"
    for metrics, step in zip(steps(undisturbed), answers(undisturbed, STEPS), strict=True):
        assert len(step) == 32
        tied, of_best = 0, []
        for _, same in itertools.groupby(step, key=lambda each: each["prompt_id"]):
            four = list(same)
            rewards, marks = [each["reward"] for each in four if each["reward"] is not None], [0.0] * 4
            best, worst = rewards.index(max(rewards)), rewards.index(min(rewards))
            if rewards[best] == rewards[worst]:
                tied += 1
            elif not in_pairs or four[best]["response"] != four[worst]["response"]:
                of_best.append(rewards[best])
                marks[best], marks[worst] = 1.0, -1.0 if in_pairs else 0.0
            assert [set(each["advantages"] or ()) for each in four] == [{mark} for mark in marks]
        assert metrics["prompts_tied"] == tied / 8
        assert metrics["rewards_best"] == pytest.approx(sum(of_best) / len(of_best))
        assert metrics["logprob_mismatch_max"] < 1e-4
    assert ("init_policy_kl" in steps(undisturbed)[0]) == in_pairs  # rejection sampling has no reference


def test_a_toy_reward_rises(undisturbed: api.Run) -> None:
    """The mean of the last four steps, against that of the policy as it was."""
    rewards = [metrics["rewards"] for metrics in steps(undisturbed)]
    assert sum(rewards[-4:]) / 4 > 1.3 * rewards[0] > 0


def test_after_kill_9_it_continues_bit_for_bit(
    algorithm: str, folder: Path, undisturbed: api.Run, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After step 3, the last checkpoint that of step 2: step 3 is sampled and learnt again."""
    hold.at(3)
    killed = run(folder, monkeypatch, algorithm, f"name={algorithm}-killed", "algorithm.max_steps=4", "backend.max_restarts=1")
    hold.wait(killed)
    ending = ["workbench.processes.worker", str(killed.dir.path)]
    alike = {p.pid: p for p in psutil.process_iter(["cmdline", "ppid"]) if (p.info["cmdline"] or [])[-2:] == ending}
    (victim,) = [p for p in alike.values() if p.info["ppid"] not in alike]
    victim.kill()
    hold.release()
    assert killed.wait(240).state == State.COMPLETED, killed.status.message
    assert [event["step"] for event in killed.events() if event["kind"] == "state"] == [0, 2]
    assert curve(killed) == {step: values for step, values in curve(undisturbed).items() if step <= 4}
    assert tokens(killed, 4) == tokens(undisturbed, 4)


def test_two_ranks_of_a_layer_and_two_stages_do_what_one_rank_does(
    algorithm: str, folder: Path, undisturbed: api.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = ("model.tensor_parallel=2", "model.pipeline_parallel=2", "backend.ranks_per_node=4")
    shared = run(folder, monkeypatch, algorithm, f"name={algorithm}-shared", "algorithm.max_steps=2", *layout)
    assert shared.wait(240).state == State.COMPLETED, shared.status.message
    for step, values in curve(shared).items():
        assert values == pytest.approx(curve(undisturbed)[step], rel=1e-3, abs=1e-5)
    assert tokens(shared, 2) == tokens(undisturbed, 2)


def test_a_step_of_ties_alone_learns_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward that rates all alike: no loss, the policy stays the reference, and all is counted; the run goes on."""
    done = run(folder, monkeypatch, "online_dpo", "algorithm.rewards.vowels.weight=0", "name=even", "algorithm.max_steps=2")
    assert done.wait(240).state == State.COMPLETED, done.status.message
    for metrics in steps(done):
        assert metrics["prompts_tied"] == 1
        assert "loss" not in metrics and "rewards_best" not in metrics
        assert math.isclose(metrics["init_policy_kl"], 0, abs_tol=1e-4)
    assert held_out(done)[-1]["rewards"] == 0
