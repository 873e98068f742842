"""Settings of the online algorithms in runs of a tiny model: what each does shows in the rollouts and the metrics."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests import models
from tests.algorithms.runs import begun, steps
from tests.waiting import until_step
from workbench import api
from workbench.rundir import rollouts
from workbench.rundir.store import State


def completed(run: api.Run) -> api.Run:
    assert run.wait(200).state == State.COMPLETED, run.status.message
    return run


def test_an_adaptive_kl_coefficient_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path) -> None:
    adaptive = ("algorithm.kl_target=1e-6", "algorithm.kl_horizon=8", "algorithm.kl_estimator=k3")
    words = ("algorithm=ppo", *adaptive, "algorithm.max_steps=6", "checkpoint.every_steps=2")
    alone = completed(begun(tmp_path / "alone", monkeypatch, tied_model, *words))
    expected = [metrics["kl_coefficient"] for metrics in steps(alone)]
    assert expected[0] == 0.01
    assert expected[-1] == pytest.approx(0.01 * 0.8 * 1.2**4)  # no KL at first, then 1.2 times each step: 8 answers are the horizon
    run = begun(tmp_path / "killed", monkeypatch, tied_model, *words, "backend.max_restarts=1")
    until_step(run, 3)
    workers = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-2:] == ["workbench.processes.worker", str(run.dir.path)]]
    first = min(workers, key=psutil.Process.create_time)  # what it starts has its command line for a moment
    first.kill()
    completed(run)
    assert run.status.attempt == 2
    by_step = {event["step"]: event["metrics"]["kl_coefficient"] for event in run.events() if event["kind"] == "step"}
    assert [by_step[step] for step in range(1, 7)] == expected


def test_a_reward_model_beside_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path) -> None:
    """Each answer's component is transformers' score of it, in the policy's process and behind a server; the reward is the weighted sum."""
    words = models.tokenizer()
    judge = AutoModelForSequenceClassification.from_pretrained(models.save_reward_model(tmp_path / "judge", seed=3), dtype=torch.float32)
    program = "short: {program: " + str(tmp_path / "mine.py") + ":short, weight: 0.5}"
    rewards = f"algorithm.rewards={{{program}, judged: {{model: {tmp_path / 'judge'}, weight: 2}}}}"
    for served in ("", "reward"):
        run = completed(
            begun(tmp_path, monkeypatch, tied_model, "algorithm=reinforce", "algorithm.max_steps=1", rewards, f"algorithm.served=[{served}]")
        )
        kept = [rollouts.one(run.dir, 1, number) for number in range(8)]
        for each in kept:
            assert each is not None
            prompt = words.apply_chat_template([{"role": "user", "content": question(each["prompt"])}], add_generation_prompt=True)["input_ids"]
            with torch.no_grad():
                score = judge(torch.tensor([[*prompt, *each["tokens"]]])).logits.item()
            assert each["reward/judged"] == pytest.approx(score, abs=1e-4)
            assert each["reward"] == pytest.approx(0.5 * each["reward/short"] + 2 * each["reward/judged"], abs=1e-5)


def question(prompt: str) -> str:
    return prompt.partition("user\n")[2].partition("<|im_end|>")[0]


def test_the_critic_learns_alone_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path) -> None:
    """With rewards whitened and clipped, and cut answers penalised: the policy moves after the critic's warm-up only."""
    words = ("algorithm.critic.warmup_steps=2", "algorithm.whiten_rewards=true", "algorithm.reward_clip=0.5", "algorithm.max_steps=4")
    penalty = ("algorithm.truncated=penalty", "algorithm.truncated_penalty=-3")
    run = completed(begun(tmp_path, monkeypatch, tied_model, "algorithm=ppo", *words, *penalty))
    told = steps(run)
    assert ["loss" in metrics for metrics in told] == [False, False, True, True]
    assert [metrics["init_policy_kl"] > 1e-5 for metrics in told] == [False, False, False, True]
    assert all(metrics["critic_loss"] > 0 for metrics in told)
    kept = [rollouts.one(run.dir, step, number) for step in (1, 4) for number in range(8)]
    assert {each["finish_reason"] for each in kept if each} >= {"length"}
    for each in kept:
        assert each is not None
        assert each["reward"] == pytest.approx(each["reward/short"] - 3 * (each["finish_reason"] == "length"))


def test_transformers_samples_and_every_answer_weighs_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path) -> None:
    """`rollout.name=hf` gives the trainer's log-probabilities, at a temperature and among kept tokens; grpo's sequence-level loss on two ranks is that on
    one; cut answers are masked, and what is scored ends before a stop string.
    """
    words = ("algorithm=grpo", "algorithm.samples_per_prompt=4", "algorithm.loss_level=sequence", "algorithm.truncated=mask", "rollout.name=hf")
    words = (*words, "algorithm.temperature=0.7", "algorithm.top_k=100", "algorithm.stop_strings=[e]")
    one = completed(begun(tmp_path / "one", monkeypatch, tied_model, *words))
    two = completed(begun(tmp_path / "two", monkeypatch, tied_model, *words, "backend.ranks_per_node=2"))
    for ours, theirs in zip(steps(two), steps(one), strict=True):
        assert ours["logprob_mismatch_max"] < 1e-3
        for name in ("rewards", "response_lengths", "loss", "grad_norm", "init_policy_kl"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-6), name
    answers = [each for number in range(8) if (each := rollouts.one(one.dir, 1, number))]
    assert "stop" in {each["finish_reason"] for each in answers}
    assert not any("e" in each["response"] for each in answers)
    assert any("e" in "".join(each["pieces"]) for each in answers)
