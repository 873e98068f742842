"""What the online algorithms make of a step's rollouts, by hand arithmetic: no model, no run."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest

from tests.algorithms.batches import REWARDS, answer, grpo_config, online_batch, ppo_config
from workbench.algorithms import _online as online
from workbench.algorithms import grpo, ppo, reinforce
from workbench.models import messages
from workbench.models.roles.reward import weighted_sum
from workbench.rollout.experience import group_into_rows, mean_rewards
from workbench.settings.online import reward_model


def test_where_shaping_puts_rewards_ppo_learns_them() -> None:
    """Without discount, values and KL the return of a token is the sum of the rewards from it on: 1 + 0 - 2 and so on; a number alone lies at the last."""
    spread, whole = answer(3, -1.0, shaped=np.array([1.0, 0.0, -2.0])), answer(2, 0.5, prompt_index=1)
    ppo.advantages([spread, whole], ppo_config())
    assert spread.returns.tolist() == [-1, -2, -2]
    assert whole.returns.tolist() == [0.5, 0.5]


def test_rewards_are_clipped_and_whitened() -> None:
    """5 and -1 clipped at 2 are 2 and -1; rewards 1 and 3 of one token each have mean 2, deviation 1, and become -1 and 1; KL stays outside the clip."""
    high, low = answer(2, 5.0, kl=[3.0, 0.0]), answer(1, -1.0, prompt_index=1)
    ppo.advantages([high, low], ppo_config(reward_clip=2, kl_coefficient=1.0))
    assert high.returns.tolist() == [-1, 2]
    assert low.returns.tolist() == [-1]
    pair = [answer(1, 1.0), answer(1, 3.0, prompt_index=1)]
    ppo.advantages(pair, ppo_config(whiten_rewards=True))
    assert [e.returns[0] for e in pair] == pytest.approx([-1, 1], abs=1e-6)


@pytest.mark.parametrize("loss", [ppo.loss, grpo.loss, reinforce.loss])
def test_a_masked_answer_gets_no_gradient_and_a_penalised_one_its_penalty(loss: Any) -> None:
    cut, ended = (
        answer(2, 1.0, finish_reason="length", advantages=np.ones(2, np.float32)),
        answer(3, 1.0, sample=1, advantages=np.ones(3, np.float32)),
    )
    cfg = grpo_config(truncated="mask", kl_coefficient=0.1)
    online.decide_learning([cut, ended], cfg)
    assert (cut.learn, ended.learn, cut.reward) == (False, True, 1.0)
    made = online_batch([cut, ended], [-0.1] * 5)
    loss_N, _ = loss(made, cfg)
    assert len(loss_N) == 3  # nor does it count in the mean
    loss_N.sum().backward()
    assert made.logprobs_N.grad is not None
    assert made.logprobs_N.grad[:2].tolist() == [0, 0]
    assert (made.logprobs_N.grad[2:] != 0).all()
    cut.shaped, cut.learn = np.array([0.25, 0.75]), True
    online.decide_learning([cut, ended], grpo_config(truncated="penalty", truncated_penalty=-2.0))
    assert (cut.reward, cut.shaped.tolist(), ended.reward, cut.learn) == (-1.0, [0.25, -1.25], 1.0, True)


def test_a_masked_answer_does_not_shift_the_others_advantages() -> None:
    """PPO whitens over learnt tokens: 1 and 3 become -1 and 1, whatever the cut answer's 100 is."""
    found = [answer(1, 1.0), answer(1, 3.0, prompt_index=1), answer(1, 100.0, prompt_index=2, finish_reason="length")]
    cfg = ppo_config(truncated="mask")
    online.decide_learning(found, cfg)
    ppo.advantages(found, cfg)
    assert [float(e.advantages[0]) for e in found] == pytest.approx([-1, 1, 0], abs=1e-6)


def test_the_level_of_grpos_loss() -> None:
    """Two answers of 1 and 3 tokens, ratios 1.1, 1, 1, 0.9 (none clipped), advantages 1 and -1, no KL.
    By token: -1.1, 1, 1, 0.9, whose mean is 0.45. By answer: -1.1 and (1 + 1 + 0.9) / 3, whose mean is (-1.1 + 0.9667) / 2 = -0.0667.
    """
    found = [answer(1, 2.0, advantages=np.ones(1, np.float32)), answer(3, 0.0, sample=1, advantages=-np.ones(3, np.float32))]
    logprobs = [math.log(ratio) for ratio in (1.1, 1, 1, 0.9)]
    by_token, _ = grpo.loss(online_batch(found, logprobs), grpo_config())
    assert by_token.tolist() == pytest.approx([-1.1, 1, 1, 0.9])
    by_answer, told = grpo.loss(online_batch(found, logprobs), grpo_config(loss_level="sequence"))
    assert by_answer.tolist() == pytest.approx([-1.1, 2.9 / 3])
    assert told["loss"].mean().item() == pytest.approx((-1.1 + 2.9 / 3) / 2)
    found[0].learn = False  # a masked answer is none, rather than one of zeros
    masked, _ = grpo.loss(online_batch(found, logprobs), grpo_config(loss_level="sequence"))
    assert masked.tolist() == pytest.approx([2.9 / 3])


def test_advantages_of_groups() -> None:
    """Two prompts of two answers. RLOO with KL: 3 - 0.5 - 1 = 1.5 and -1.5; GRPO: (r - mean) / (std + 1e-4), with std = 2 / sqrt 2 for 3 and 1."""
    found = [answer(1, 3.0, kl=[0.5]), answer(2, 1.0, sample=1), answer(1, 0.0, prompt_index=1), answer(1, 4.0, prompt_index=1, sample=1)]
    shared = {"rewards": REWARDS, "samples_per_prompt": 2, "rollout_batch_size": 4, "global_batch_size": 4}
    reinforce.advantages(found, reinforce.Config.model_validate({**shared, "kl_coefficient": 1.0}))
    assert [e.advantages.tolist() for e in found] == [[1.5], [-1.5, -1.5], [-4], [4]]
    grpo.advantages(found, grpo_config())
    assert [e.advantages[0] for e in found] == pytest.approx([0.70706, -0.70706, -0.70709, 0.70709], abs=2e-5)


def test_masked_answers_are_in_no_baseline() -> None:
    """Rewards 3, 1 and a truncated 100: RLOO of the two others, 2 and -2; their GRPO advantages are those of 3 and 1. With two of three truncated there
    is nothing to compare. KL: 0.5 + 0.3 by answer, 0.4 by token.
    """
    shared = {"rewards": REWARDS, "samples_per_prompt": 3, "rollout_batch_size": 3, "global_batch_size": 3, "truncated": "mask"}

    def found() -> list[Any]:
        return [answer(2, 3.0, kl=[0.5, 0.3]), answer(1, 1.0, sample=1), answer(1, 100.0, sample=2, finish_reason="length")]

    levels: dict[Literal["token", "answer"], float] = {"token": 2 - 0.4, "answer": 2 - 0.8}
    for level, advantage in levels.items():
        cfg = reinforce.Config.model_validate({**shared, "kl_coefficient": 1.0})
        answers = found()
        online.decide_learning(answers, cfg)
        reinforce.advantages(answers, cfg, level)
        assert [e.advantages[0] for e in answers] == pytest.approx([advantage, -advantage, 0])
        assert [e.learn for e in answers] == [True, True, False]
    cfg = grpo_config(**shared)
    answers = found()
    online.decide_learning(answers, cfg)
    grpo.advantages(answers, cfg)
    assert [e.advantages[0] for e in answers] == pytest.approx([0.70706, -0.70706, 0], abs=2e-5)
    answers[1].finish_reason = "length"
    online.decide_learning(answers, cfg)
    grpo.advantages(answers, cfg)
    assert [(e.learn, float(e.advantages[0])) for e in answers] == [(False, 0.0)] * 3


def test_metrics_mean_nemo_aligners_quantities() -> None:
    """Answers of 2 and 1 tokens to prompts of 2, KL (0.5, 0.3) and (0.1): init_policy_kl is (0.4 + 0.1) / 2, an answer's KL (0.8 + 0.1) / 2."""
    told = online.metrics([answer(2, 1.0, kl=[0.5, 0.3]), answer(1, 1.0, prompt_index=1, kl=[0.1])])
    assert (told["init_policy_kl"], told["kl_per_answer"]) == pytest.approx((0.25, 0.45))
    assert (told["generation_length"], told["prompt_lengths"], told["response_lengths"]) == (1.5, 2, 3.5)


def test_a_temperature_travels_with_its_answers() -> None:
    """To the trainer's rows, and to a server and back: neighbours at another temperature are another row."""
    found = [answer(2, 1.0, temperature=0.6), answer(1, 1.0, sample=1, temperature=0.6), answer(1, 1.0, prompt_index=1, temperature=2.0)]
    for rows in (group_into_rows(found, {}), messages.rows(messages.request(found))):
        assert [(len(row.branches), row.temperature) for row in rows] == [(2, pytest.approx(0.6)), (1, 2.0)]


def test_an_unknown_reward_teaches_nothing_and_is_in_no_mean() -> None:
    """Rewards 3, 1 and one unknown: RLOO of the two known ones, 2 and -2. A prompt with one known answer has nothing to be compared with. The means are
    of known rewards: (3 + 1 + 5) / 3 = 3, and of the judge's known scores: (1 + 0 + 1) / 3.
    """
    values = [(3.0, 1.0), (None, None), (1.0, 0.0), (None, None), (5.0, 1.0), (None, None)]
    found = [answer(2, reward, prompt_index=i // 3, sample=i % 3, components={"judged": score}) for i, (reward, score) in enumerate(values)]
    cfg = reinforce.Config.model_validate(
        {"rewards": REWARDS, "samples_per_prompt": 3, "rollout_batch_size": 6, "global_batch_size": 6, "kl_coefficient": 0.0}
    )
    online.decide_learning(found, cfg)
    reinforce.advantages(found, cfg)
    assert [e.advantages.tolist() for e in found] == [[2, 2], [0, 0], [-2, -2], [0, 0], [0, 0], [0, 0]]
    assert [e.learn for e in found] == [True, False, True, False, False, False]
    told = online.metrics(found)
    assert (told["rewards"], told["rewards_unknown"], told["reward/judged"]) == (3, 0.5, pytest.approx(2 / 3))
    assert mean_rewards(found) == {"rewards": 3, "reward/judged": 2 / 3, "rewards_unknown": 0.5}
    assert mean_rewards([found[1]]) == {"rewards_unknown": 1}


def test_ppo_leaves_an_unknown_reward_out() -> None:
    """Rewards 1 and 3 are whitened to -1 and 1, whatever lies between them; no returns are made up for the critic."""
    found = [answer(1, 1.0), answer(1, None, prompt_index=1), answer(1, 3.0, prompt_index=2)]
    online.decide_learning(found, ppo_config(truncated="penalty", truncated_penalty=-1))
    ppo.advantages(found, ppo_config())
    assert [float(e.advantages[0]) for e in found] == pytest.approx([-1, 0, 1], abs=1e-6)
    assert [e.learn for e in found] == [True, False, True]
    assert found[1].returns is None


def test_the_sum_is_unknown_where_a_part_of_it_is() -> None:
    """2 x 0.5 + 3 x 1 = 4; an unknown part makes the whole unknown, unless it weighs nothing."""
    rewards = {name: reward_model().model_validate({"program": "brevity", "weight": weight}) for name, weight in (("a", 2.0), ("b", 3.0), ("c", 0.0))}
    assert weighted_sum({"a": 0.5, "b": 1.0, "c": None}, rewards) == 4
    assert weighted_sum({"a": 0.5, "b": None, "c": 1.0}, rewards) is None
