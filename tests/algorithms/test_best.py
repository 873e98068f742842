"""What online DPO and rejection sampling make of a step's rollouts: the choice and the losses by hand and by formula, and the updates of data's DPO."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.algorithms.batches import answer, online_batch, online_dpo_config, rejection_config
from workbench.algorithms import _best as best
from workbench.algorithms import dpo, online_dpo, rejection_sampling, sft
from workbench.data.packing import Row
from workbench.engine.step import Policy
from workbench.processes.learning import learn, minibatches
from workbench.rollout.experience import LEARNT, Experience, group_into_rows
from workbench.settings import Lora, Model
from workbench.settings.outputs import Outputs


def of_prompt(place: int, *answers: tuple[float | None, str], **values: Any) -> list[Experience]:
    """A prompt's answers of one token each, by reward and text."""
    return [
        answer(1, reward, prompt_index=place, sample=i, response=text, learn=reward is not None, **values) for i, (reward, text) in enumerate(answers)
    ]


def test_the_best_and_the_worst_of_each_prompt() -> None:
    """Of 4 prompts one is learnt from: the others are a tie, have one rated answer, and have the same text as best and worst."""
    experiences = [
        *of_prompt(0, (1, "a"), (3, "b"), (2, "c"), (3, "d"), (1, "e")),
        *of_prompt(1, (2, "a"), (2, "b")),
        *of_prompt(2, (2, "a"), (None, "b")),
        *of_prompt(3, (1, "a"), (1.5, "b"), (2, "a")),
    ]
    choice = best.choose(experiences, distinct=True)
    assert [(e.response, f.response) for e, f in choice.pairs] == [("b", "a")]  # of equal rewards the first
    assert choice.metrics == {"prompts_unrated": 0.25, "prompts_tied": 0.25, "prompts_alike": 0.25, "rewards_best": 3, "rewards_worst": 1}
    best.mark(experiences, *([pair[i] for pair in choice.pairs] for i in (0, 1)))
    assert [e.known("advantages").tolist() for e in experiences] == [[-1], [1], *[[0]] * 10]
    chosen, rejected = online_dpo.pairs(choice)
    assert chosen.row is rejected.row
    assert chosen.row.values == {"chosen_reward": 3, "rejected_reward": 1}


def test_the_same_text_is_no_matter_where_the_best_alone_is_learnt() -> None:
    choice = best.choose(of_prompt(0, (1, "a"), (2, "a")))
    assert [e.reward for e, _ in choice.pairs] == [2]
    assert choice.metrics == {"prompts_unrated": 0, "prompts_tied": 0, "rewards_best": 2, "rewards_worst": 1}


def test_a_tie_is_counted_and_may_be_kept() -> None:
    experiences = [*of_prompt(0, (1, "a"), (1, "b")), *of_prompt(1, (1, "a"), (2, "b"))]
    assert [e.response for e, _ in best.choose(experiences).pairs] == ["b"]
    kept = best.choose(experiences, keep_ties=True)
    assert [(e.prompt_index, e.response) for e, _ in kept.pairs] == [(0, "a"), (1, "b")]
    assert kept.metrics["prompts_tied"] == best.choose(experiences).metrics["prompts_tied"] == 0.5


def test_nothing_to_choose_is_no_pair_and_no_mean() -> None:
    choice = best.choose(of_prompt(0, (1, "a"), (1, "b")), distinct=True)
    assert not choice.pairs
    assert choice.metrics == {"prompts_unrated": 0, "prompts_tied": 1, "prompts_alike": 0}


def test_a_reward_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="the reward of an answer is nan"):
        best.choose(of_prompt(0, (1, "a"), (math.nan, "b")))


def test_a_masked_answer_is_not_chosen() -> None:
    answers = of_prompt(0, (1, "a"), (2, "b"), (9, "c"))
    answers[2].learn = False
    assert [(e.reward, f.reward) for e, f in best.choose(answers).pairs] == [(2, 1)]


def test_loss_of_one_pair() -> None:
    """The best: log-ratio (-1 - -1.5) + (-2 - -2.5) = 1. The worst: -3 - -2 = -1. D = 2, beta 0.5: -log sigmoid(1) = 0.313262; rewards 0.5 and -0.5."""
    worst = answer(1, 1.0, response="a", reference_logprobs=[-2.0])
    chosen = answer(2, 3.0, sample=1, response="b", reference_logprobs=[-1.5, -2.5])
    best.mark([worst, chosen], [chosen], [worst])
    learnt = online_dpo.pairs(best.choose([worst, chosen]))
    loss_B, metrics = online_dpo.loss(online_batch(learnt, [-1.0, -2.0, -3.0]), online_dpo_config(beta=0.5))
    assert loss_B.tolist() == pytest.approx([0.313262], abs=1e-6)
    assert {name: metrics[name].tolist() for name in ("rewards_chosen_mean", "rewards_rejected_mean", "accuracy")} == {
        "rewards_chosen_mean": [0.5],
        "rewards_rejected_mean": [-0.5],
        "accuracy": [1],
    }


def test_likelihood_of_the_best() -> None:
    """Best answers of 2 tokens and of 1: every token weighs the same, (1 + 2 + 6) / 3 = 3."""
    experiences = [answer(1, 0.0), answer(2, 1.0, sample=1), answer(1, 5.0, prompt_index=1), answer(3, 4.0, prompt_index=1, sample=1)]
    chosen = [e for e, _ in best.choose(experiences).pairs]
    best.mark(experiences, chosen)
    assert [e.known("advantages").tolist() for e in experiences] == [[0], [1, 1], [1], [0, 0, 0]]
    loss_N, metrics = rejection_sampling.loss(online_batch(chosen, [-1.0, -2.0, -6.0]), rejection_config())
    assert loss_N.mean().item() == metrics["loss"].mean().item() == 3


def rollouts(generator: np.random.Generator) -> list[Experience]:
    """Four answers to each of three prompts, with rewards that tie and texts that repeat."""
    made = []
    for place in range(3):
        for sample in range(4):
            count = int(generator.integers(1, 6))
            given = {"response": "abc"[generator.integers(3)], "reference_logprobs": -generator.random(count)}
            made.append(answer(count, float(generator.integers(3)), prompt_index=place, sample=sample, **given))
    return made


FORMULAS = {
    "dpo": lambda delta, gap, beta, eta: math.log1p(math.exp(-beta * delta)),
    "ipo": lambda delta, gap, beta, eta: (delta - 1 / (2 * beta)) ** 2,
    "hinge": lambda delta, gap, beta, eta: max(0.0, 1 - beta * delta),
    "rpo_sq": lambda delta, gap, beta, eta: (beta * delta - eta * gap) ** 2,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_losses_by_their_formulas_on_200_random_steps(name: str) -> None:
    """Table 2 of the paper (and NeMo-Aligner's rpo_sq) over the pairs that a plain search finds."""
    generator = np.random.default_rng(0)
    compared = 0
    for _ in range(200):
        experiences, beta, eta = rollouts(generator), float(generator.uniform(0.05, 1)), float(generator.uniform(0.5, 2))
        policy = {id(e): -generator.random(len(e.tokens)) for e in experiences}
        expected, logprobs = [], []
        for place in range(3):
            four = experiences[4 * place : 4 * place + 4]
            rewards = np.array([e.reward for e in four])
            high, low = four[rewards.argmax()], four[rewards.argmin()]
            if high.reward == low.reward or high.response == low.response:
                continue
            ratios = [(policy[id(e)] - e.known("reference_logprobs")).sum() for e in (high, low)]
            expected.append(FORMULAS[name](ratios[0] - ratios[1], high.known("reward") - low.known("reward"), beta, eta))
            logprobs += [*policy[id(high)], *policy[id(low)]]
        choice = best.choose(experiences, distinct=True)
        assert len(choice.pairs) == len(expected)
        if expected:
            best.mark(experiences, [])
            batch = online_batch(online_dpo.pairs(choice), logprobs)
            loss_B, _ = online_dpo.loss(batch, online_dpo_config(preference_loss=name, beta=beta, eta=eta))
            assert loss_B.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)
            compared += len(expected)
    assert compared > 200


@pytest.mark.parametrize(("count", "sizes"), [(16, [8, 8]), (11, [5, 6]), (8, [8]), (3, [3])])
def test_pairs_are_never_parted_and_updates_are_as_equal_as_can_be(count: int, sizes: list[int]) -> None:
    cfg = online_dpo_config(rollout_batch_size=64, global_batch_size=8)
    experiences = [answer(1, float(i), prompt_index=place, sample=i) for place in range(count) for i in range(2)]
    for _ in range(2):
        parts = list(minibatches(experiences, cfg, 2, seed=0, step=3))
        assert [len(part) // 2 for part in parts] == sizes * 2
        assert all([e.sample for e in part] == [0, 1] * (len(part) // 2) for part in parts)
        assert sorted(e.prompt_index for part in parts for e in part) == sorted([*range(count)] * 4)


def test_what_a_step_cannot_fill_is_refused() -> None:
    for config in (online_dpo_config, rejection_config):
        with pytest.raises(ValueError, match=r"8 prompts \(rollout_batch_size=64 / samples_per_prompt=8\).*set global_batch_size=8"):
            config(samples_per_prompt=8)
        assert config(samples_per_prompt=8, global_batch_size=4).learnt_per_step == 8
        with pytest.raises(ValueError, match="samples_per_prompt"):
            config(samples_per_prompt=1)
    with pytest.raises(ValueError, match="clip_low"):
        online_dpo_config(clip_low=0.1)
    with pytest.raises(ValueError, match="kl_estimator"):
        rejection_config(kl_estimator="k3")
    with pytest.raises(ValueError, match="cdpo needs a smoothing"):
        online_dpo_config(label_smoothing=0.1)


# --- the engine


@pytest.fixture(scope="module")
def policy(tied_model: Path, alone: None) -> Policy:
    """That stays as it is while it learns."""
    return Policy(Model(source=str(tied_model), lora=Lora(rank=0)), online_dpo_config(lr=1e-30), tied_model, 1, Outputs(logprobs=True))


def sampled(generator: np.random.Generator) -> list[Experience]:
    """Three answers to each of four prompts, in tokens of the model."""
    made = []
    for place in range(4):
        prompt = Row(generator.integers(3, 40, 5 + place).tolist())
        for sample in range(3):
            tokens = generator.integers(3, 40, int(generator.integers(2, 7))).tolist()
            given = {"response": str(tokens), "reference_logprobs": -3 - generator.random(len(tokens))}
            one = answer(len(tokens), float(generator.random()), prompt_index=place, sample=sample, **given)
            made.append(dataclasses.replace(one, row=prompt, tokens=tokens))
    return made


@pytest.mark.parametrize("name", ["dpo", "ipo", "rpo_fwd_kl"])
def test_the_update_is_dpos_on_the_same_pairs_bit_for_bit(policy: Policy, name: str) -> None:
    experiences = sampled(np.random.default_rng(1))
    learnt = online_dpo.pairs(best.choose(experiences, distinct=True))
    best.mark(learnt, [])
    cfg = online_dpo_config(lr=1e-30, preference_loss=name, sft_loss_weight=0.1)
    policy.use(cfg)
    ours = learn(policy, learnt, online_dpo.loss, 1, 0, 0)
    rows = group_into_rows(next(minibatches(learnt, cfg, 1, 0, 0)), LEARNT)
    data = [Row(row.prefix, row.branches, values=row.values, reference_logprobs_N=row.arrays["reference_logprobs"]) for row in rows]
    policy.use(dpo.Config.model_validate({"lr": 1e-30, "preference_loss": name, "sft_loss_weight": 0.1}))
    theirs = policy.update(data, dpo.loss, 0, 0)
    assert len(data) == 4
    for metric in ("loss", "grad_norm", "rewards_margin", "logprobs_chosen", "logprobs_rejected"):
        assert ours[metric] == theirs[metric] != 0, metric


def test_the_update_is_sfts_on_the_best_answers(policy: Policy) -> None:
    """As conversations, whose prompt and answer are one sequence."""
    chosen = [e for e, _ in best.choose(sampled(np.random.default_rng(2))).pairs]
    policy.use(rejection_config(lr=1e-30))
    ours = learn(policy, [dataclasses.replace(e, reference_logprobs=None) for e in chosen], rejection_sampling.loss, 1, 0, 0)
    data = [Row([*e.row.prefix, *e.tokens], learn=[False] * len(e.row.prefix) + [True] * len(e.tokens)) for e in chosen]
    policy.use(sft.Config(lr=1e-30))
    theirs = policy.update(data, sft.loss, 0, 0)
    for metric in ("loss", "grad_norm", "logprobs"):
        assert ours[metric] == pytest.approx(theirs[metric], rel=1e-5), metric
