"""The policy that learns is the one that was sampled: by enumeration of every answer of a model with few tokens, at each way to draw."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.algorithms.batches import answer, grpo_config
from workbench.algorithms import _online as online
from workbench.algorithms import grpo
from workbench.data.packing import Kept
from workbench.engine.step import Policy
from workbench.monitoring import alarms
from workbench.rollout.base import Sampling
from workbench.rollout.draw import draw, kept_tokens
from workbench.rollout.experience import LEARNT, Experience, fill, group_into_rows
from workbench.settings import Lora, Model
from workbench.settings.outputs import Outputs

pytestmark = pytest.mark.usefixtures("alone")
TOKENS, LENGTH = 6, 3
WAYS = [
    Sampling(LENGTH),
    Sampling(LENGTH, temperature=0.6),
    Sampling(LENGTH, temperature=2.0),
    Sampling(LENGTH, top_k=3, kept=True),
    Sampling(LENGTH, top_p=0.6, kept=True),
    Sampling(LENGTH, temperature=0.6, top_k=4, top_p=0.8, kept=True),
]
Reward = Callable[[Experience], float]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory, alone: None) -> Policy:
    """One layer, six tokens, and logits that are far from even."""
    folder = tmp_path_factory.mktemp("six")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
    model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=TOKENS, tie_word_embeddings=False))
    model.lm_head.weight.data.mul_(20)
    model.save_pretrained(folder)
    return Policy(Model(lora=Lora(rank=0)), grpo_config(lr=1e-12, clip_norm=0.0, importance_cap=0.0), folder, 1, Outputs(logprobs=True))


def step_of(policy: Policy, prefix: list[int], sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """What the sampler draws among after a prefix: the kept tokens, and each one's log-probability as the sampler reports it."""
    logits_1V = policy.logits(prefix)[-1:].float()
    grid_M = (torch.arange(4000) + 0.5) / 4000
    drawn = draw(logits_1V.expand(len(grid_M), -1), sampling, grid_M)
    kept = kept_tokens(drawn.kept_BV[:1])[0] if drawn.kept_BV is not None else np.arange(TOKENS)
    logprobs = dict(zip(drawn.token_B.tolist(), drawn.logprob_B.tolist(), strict=True))
    if drawn.kept_BV is None:  # rarer than a draw of the grid
        scaled = (logits_1V[0] / sampling.temperature).log_softmax(-1).tolist()
        assert all(scaled[token] == pytest.approx(logprob, abs=1e-5) for token, logprob in logprobs.items())
        logprobs = dict(enumerate(scaled))
    return kept, np.array([logprobs[token] for token in kept.tolist()])


def every_answer(policy: Policy, sampling: Sampling) -> list[Experience]:
    """All answers to one prompt that could have been drawn, as the sampler reports them."""
    steps = {(): step_of(policy, [1, 2], sampling)}
    for size in range(1, LENGTH):
        begun = [tokens for tokens in steps if len(tokens) == size - 1]
        steps |= {(*tokens, t): step_of(policy, [1, 2, *tokens, t], sampling) for tokens in begun for t in steps[tokens][0].tolist()}
    made = []
    for number, tokens in enumerate(itertools.product(range(TOKENS), repeat=LENGTH)):
        at = [steps.get(tokens[:i]) for i in range(LENGTH)]
        if any(step is None or t not in step[0] for step, t in zip(at, tokens, strict=True)):
            continue
        places = [step for step in at if step is not None]
        logprobs = [step[1][step[0].tolist().index(t)] for step, t in zip(places, tokens, strict=True)]
        kept = Kept(np.concatenate([step[0] for step in places]), np.array([len(step[0]) for step in places])) if sampling.kept else None
        drawn = {"tokens": list(tokens), "rollout_logprobs": np.array(logprobs, np.float32), "temperature": sampling.temperature, "kept": kept}
        made.append(replace(answer(LENGTH, 0.0, sample=number), **drawn))
    return made


def measured(policy: Policy, answers: list[Experience]) -> list[Experience]:
    fill(answers, [given.of("logprobs_N") for given in policy.outputs(group_into_rows(answers, {}))], "logprobs")
    return answers


def gradient(policy: Policy, answers: list[Experience], reward: Reward, first: int = 0) -> float:
    """The norm of the expected gradient: of each answer's surrogate at its tokens from `first` on, times its probability."""
    for one in answers:
        probability = np.exp(one.rollout_logprobs.astype(np.float64).sum())
        one.advantages = np.array([0.0] * first + [len(answers) * probability * reward(one)] * (LENGTH - first), np.float32)
    return policy.update(group_into_rows(answers, LEARNT), grpo.loss, 0, 0)["grad_norm"]


@pytest.mark.parametrize("sampling", WAYS, ids=lambda way: f"T{way.temperature:g}-k{way.top_k}-p{way.top_p:g}")
def test_what_the_reward_ignores_has_no_expected_gradient(policy: Policy, sampling: Sampling) -> None:
    """A constant reward, and the tokens after the one that a reward depends on; the answers' probabilities sum to 1."""
    answers = measured(policy, every_answer(policy, sampling))
    assert sum(np.exp(e.rollout_logprobs.astype(np.float64).sum()) for e in answers) == pytest.approx(1, abs=1e-5)
    scale = gradient(policy, answers, lambda e: float(e.tokens[0] % 2 + e.tokens[-1]))
    assert gradient(policy, answers, lambda e: 1.0) < 1e-4 * scale
    assert gradient(policy, answers, lambda e: float(e.tokens[0] % 2), first=1) < 1e-4 * scale
    assert online.metrics(answers)["logprob_mismatch_max"] < 1e-5


@pytest.mark.parametrize("sampling", WAYS[1:], ids=lambda way: f"T{way.temperature:g}-k{way.top_k}-p{way.top_p:g}")
def test_another_distribution_than_the_sampled_one_is_biased_and_seen(policy: Policy, sampling: Sampling) -> None:
    """Measured at temperature 1 among all tokens, as it was before: the ignored tokens' gradient is not 0, and the alarm sounds."""
    right = measured(policy, every_answer(policy, sampling))
    scale = gradient(policy, right, lambda e: float(e.tokens[0] % 2 + e.tokens[-1]))
    wrong = measured(policy, [replace(e, temperature=1.0, kept=None) for e in right])
    assert gradient(policy, wrong, lambda e: 1.0) > 0.03 * scale
    assert [alarm.name for alarm in alarms.raised([online.metrics(wrong)])] == ["mismatch"]
