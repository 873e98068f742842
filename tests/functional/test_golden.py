"""Losses and advantages against TRL's and NeMo-Aligner's formulas on 200 random inputs each: `tests/golden/make_golden.py` makes the values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.algorithms.batches import REWARDS, answer, grpo_config, online_batch, ppo_config
from tests.golden.make_golden import ANSWERS, CASES, GROUPS, SAMPLES, read
from workbench.algorithms import _online as online
from workbench.algorithms import cpo, dpo, grpo, kto, orpo, ppo, reinforce, reward_model, simpo
from workbench.data.packing import Row
from workbench.engine.batch import Batch, Given
from workbench.functional import policy_gradient
from workbench.rollout.experience import Experience

GIVEN, GOLDEN = read()
Case = dict[str, np.ndarray]


def case_of(number: int) -> Case:
    return {name: array[number] for name, array in GIVEN.items()}


def same(name: str, found: Callable[[Case], Any], tolerance: float = 2e-5) -> None:
    """Of every case, what is found of its inputs is the golden value."""
    assert len(GOLDEN[name]) == CASES == 200
    ours = np.array([np.asarray(found(case_of(number)), np.float64) for number in range(CASES)])
    np.testing.assert_allclose(ours, GOLDEN[name].reshape(ours.shape), rtol=tolerance, atol=tolerance)


# --- from data


def pairs(now: Case) -> Batch:
    """The case's answers, chosen and rejected in turn, as a microbatch."""
    lengths = now["pair_lengths"].astype(int)
    policy, reference = (np.concatenate([now[f"pair_{each}"][i, :n] for i, n in enumerate(lengths)]) for each in ("policy", "reference"))
    rows = [
        Row(
            [1],
            ((1,) * lengths[i], (1,) * lengths[i + 1]),
            values={"chosen_reward": now["pair_rewards"][i], "rejected_reward": now["pair_rewards"][i + 1]},
        )
        for i in range(0, len(lengths), 2)
    ]
    sequence_N = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    return Batch(Given(torch.from_numpy(policy)), torch.from_numpy(reference), sequence_N, len(lengths), rows)


def scores(now: Case) -> Batch:
    rewards = now["pair_rewards"]
    rows = [Row([1], ((1,), (2,)), values={"chosen_reward": float(now["eta"]), "rejected_reward": 0.0}) for _ in rewards[::2]]
    return Batch(Given(scores_SK=torch.from_numpy(rewards)[:, None]), None, torch.zeros(0), len(rewards), rows)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("trl/dpo_sigmoid", {}),
        ("trl/dpo_sigmoid_norm", {"length_normalized": True}),
        ("trl/dpo_hinge", {"preference_loss": "hinge"}),
        ("trl/dpo_ipo", {"preference_loss": "ipo", "length_normalized": True}),
        ("nemo/dpo", {}),
        ("nemo/cdpo", {"preference_loss": "cdpo"}),
        ("nemo/ipo", {"preference_loss": "ipo"}),
        ("nemo/rpo_sq", {"preference_loss": "rpo_sq"}),
        ("nemo/rpo_fwd_kl", {"preference_loss": "rpo_fwd_kl"}),
        ("nemo/rpo_bwd_kl", {"preference_loss": "rpo_bwd_kl"}),
    ],
)
def test_preference_losses(name: str, settings: dict[str, Any]) -> None:
    def found(now: Case) -> float:
        smoothing = {"label_smoothing": float(now["smoothing"])} if settings.get("preference_loss") == "cdpo" else {}
        cfg = dpo.Config(beta=float(now["beta"]), eta=float(now["eta"]), **settings, **smoothing)
        return dpo.loss(pairs(now), cfg)[0].mean().item()

    same(name, found)


def test_kto() -> None:
    def found(now: Case) -> float:
        batch = pairs(now)
        rows = [Row([1], ((1,) * int(n),), values={"desirable": wanted}) for n, wanted in zip(now["pair_lengths"], now["wanted"] > 0, strict=True)]
        desirable, undesirable = now["weights"].tolist()
        cfg = kto.Config(beta=float(now["beta"]), desirable_weight=desirable, undesirable_weight=undesirable)
        return kto.loss(replace(batch, rows=rows), cfg, float(now["kl"]))[0].mean().item()

    same("trl/kto", found)


def test_orpo() -> None:
    """The odds-ratio term, before its sign."""
    same("trl/orpo_odds", lambda now: -float(now["beta"]) * orpo.loss(pairs(now), orpo.Config())[1]["preference_loss"].mean().item())


def test_cpo() -> None:
    """With the likelihood of every chosen token."""
    same("trl/cpo", lambda now: cpo.loss(pairs(now), cpo.Config(beta=float(now["beta"])))[0].mean().item())


def test_simpo() -> None:
    same("trl/simpo", lambda now: simpo.loss(pairs(now), simpo.Config(beta=float(now["beta"]), gamma=float(now["eta"])))[0].mean().item())


@pytest.mark.parametrize(("name", "kind"), [("trl/ranking", "plain"), ("trl/ranking_margin", "margin"), ("nemo/ranking_scaled", "scaled")])
def test_ranking(name: str, kind: Any) -> None:
    same(name, lambda now: reward_model.loss(scores(now), reward_model.Config(ranking_loss=kind))[0].mean().item())


def test_regression() -> None:
    """Every rating of the batch weighs the same."""
    names = ("helpfulness", "humor", "quality")
    cfg = reward_model.Config(objective="regression", attributes=names)

    def found(now: Case) -> float:
        rated = [dict(zip(names, ratings, strict=True)) for ratings in now["ratings"].tolist()]
        rows = [Row([1], ((1,),), values={name: rating for name, rating in each.items() if rating >= 0}) for each in rated]
        kept = [i for i, row in enumerate(rows) if row.values]
        batch = Batch(Given(scores_SK=torch.from_numpy(now["scores"][kept])), None, torch.zeros(0), len(kept), [rows[i] for i in kept])
        return reward_model.loss(batch, cfg)[0].mean().item()

    same("nemo/regression", found)


# --- from rollouts


def answers(now: Case, kl: float = 0.0) -> list[Experience]:
    """The case's answers as a step's rollouts, truncated where they did not end; the reference's log-probabilities as given, times `kl`."""
    made = []
    for i, length in enumerate(now["lengths"].astype(int)):
        span = slice(0, length)
        arrays = {"logprobs": now["old"][i, span], "reference_logprobs": now["reference"][i, span], "values": now["values"][i, span]}
        one = answer(length, float(now["rewards"][i]), sample=i % SAMPLES, finish_reason="stop" if now["ended"][i] else "length", **arrays)
        made.append(replace(one, prompt_index=i // SAMPLES, kl=(now["old"] - now["reference"])[i, span] * kl))
    return made


def learning(cfg: Any, advantages: Callable[[Sequence[Experience], Any], None], made: list[Experience]) -> list[float]:
    """Each answer's advantage; of one that is not learnt from, 0."""
    online.decide_learning(made, cfg)
    advantages(made, cfg)
    return [float(e.known("advantages")[0]) * float(e.known("learn")) for e in made]


SHARED = {"rewards": REWARDS, "samples_per_prompt": SAMPLES, "rollout_batch_size": ANSWERS, "global_batch_size": ANSWERS, "truncated": "mask"}


@pytest.mark.parametrize(("name", "scale"), [("trl/advantages_group", True), ("trl/advantages_none", False)])
def test_grpo_advantages(name: str, scale: bool) -> None:
    """TRL's of the answers that can be scored are ours of those that are not masked."""
    assert len(GOLDEN[name][0]) == GROUPS * SAMPLES
    cfg = grpo_config(**SHARED, scale_by_deviation=scale)

    def comparable(now: Case) -> np.ndarray:
        """A deviation of one answer is none: TRL gives that answer 0 by way of NaN, as it does without scaling."""
        return np.array(learning(cfg, grpo.advantages, answers(now)))

    same(name, comparable, 2e-4)


def test_rloo_advantages() -> None:
    cfg = reinforce.Config.model_validate({**SHARED, "kl_coefficient": 0.0})
    same("trl/advantages_rloo", lambda now: learning(cfg, reinforce.advantages, answers(now)))

    def with_kl(now: Case) -> list[float]:
        return learning(reinforce.Config.model_validate({**SHARED, "kl_coefficient": float(now["beta"])}), reinforce.advantages, answers(now, kl=1.0))

    same("nemo/advantages_rloo", with_kl)


def surrogate(now: Case, advantages: np.ndarray) -> Batch:
    """The case's answers with advantages [A, T], as the loss gets them."""
    made, mask = answers(now), np.arange(now["policy"].shape[1]) < now["lengths"][:, None]
    for i, e in enumerate(made):
        e.advantages = advantages[i, : len(e.tokens)]
        e.rollout_logprobs = e.known("logprobs")
    batch = online_batch(made, now["policy"][mask].tolist())
    arrays = {"old_logprobs": now["old"], "reference_logprobs": now["reference"], "advantages": advantages}
    return replace(batch, arrays={**batch.arrays, **{name: torch.from_numpy(array[mask]) for name, array in arrays.items()}})


@pytest.mark.parametrize(("name", "level"), [("trl/grpo", "sequence"), ("trl/bnpo", "token")])
def test_grpo_loss(name: str, level: str) -> None:
    """Clipped at 0.9 and 1.3, bounded at 1.5 for negative advantages (TRL's two-sided clipping is the dual clip), with the KL's k3."""

    def found(now: Case) -> float:
        cfg = grpo_config(loss_level=level, kl_coefficient=float(now["beta"]), clip_low=0.1, clip_high=0.3, dual_clip=1.5)
        advantages = np.repeat(now["rewards"][:, None], now["policy"].shape[1], 1)
        return grpo.loss(surrogate(now, advantages), cfg)[0].mean().item()

    same(name, found)


def test_ppo() -> None:
    """Advantages, returns, the policy's and the critic's loss."""

    def measured(now: Case) -> list[Experience]:
        made = answers(now, kl=1.0)
        cfg = ppo_config(gamma=0.9, gae_lambda=0.8, kl_coefficient=float(now["beta"]), truncated="mask")
        online.decide_learning(made, cfg)
        ppo.advantages(made, cfg)
        return made

    def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([np.pad(array, (0, GIVEN["values"].shape[2] - len(array))) for array in arrays])

    def learnt(now: Case) -> np.ndarray:
        made = measured(now)
        alone = sum(len(e.tokens) for e in made if e.learn) <= 1
        return padded([e.known("advantages") * (alone or e.known("learn")) for e in made])

    same("nemo/ppo_advantages", learnt, 1e-4)
    same("nemo/ppo_returns", lambda now: padded([e.known("returns") for e in measured(now)]))
    same("nemo/ppo_loss", lambda now: ppo.loss(surrogate(now, now["values"]), ppo_config())[0].mean().item())

    def critic(now: Case) -> float:
        mask = np.arange(now["values"].shape[1]) < now["lengths"][:, None]
        returns = np.concatenate([e.known("returns") for e in measured(now)])
        arrays = (torch.from_numpy(array) for array in (now["new_values"][mask], now["values"][mask], returns))
        return policy_gradient.clipped_value(*arrays, 0.2).mean().item()

    same("nemo/critic_loss", critic)


def test_kl() -> None:
    def measured(now: Case) -> list[Experience]:
        made = answers(now)
        online.measure_kl(made, ppo_config(kl_estimator="abs"))
        return made

    def padded(now: Case) -> np.ndarray:
        return np.stack([np.pad(e.known("kl"), (0, now["old"].shape[1] - len(e.tokens))) for e in measured(now)])

    same("nemo/kl_abs", padded)
    same("nemo/init_policy_kl", lambda now: online.metrics(answers(now, kl=1.0))["init_policy_kl"])


def test_every_formula_is_compared() -> None:
    text = Path(__file__).read_text()
    assert [name for name in GOLDEN if f'"{name}"' not in text] == []
