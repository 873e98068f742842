"""Every algorithm reports metrics that are registered, and no others: from its loss on a batch written out by hand, and what it makes of rollouts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

from tests.algorithms.batches import (
    KTO_ROWS,
    REGRESSION,
    answer,
    group_batch,
    grpo_config,
    kto_batch,
    online_batch,
    online_dpo_config,
    ppo_config,
    rejection_config,
    score_batch,
    taught_batch,
)
from workbench.algorithms import (
    Answer,
    cpo,
    distill,
    dpo,
    grpo,
    kto,
    online_dpo,
    orpo,
    ppo,
    reinforce,
    rejection_sampling,
    reward_model,
    sft,
    simpo,
    spin,
    steerlm2,
)
from workbench.algorithms import _best as best
from workbench.algorithms import _online as online
from workbench.data.packing import Row
from workbench.engine.batch import Batch, Given
from workbench.metrics import Metric, find
from workbench.models.roles import critic
from workbench.monitoring import score_diagnostics
from workbench.rollout.base import Profile
from workbench.settings.modules import algorithm_names
from workbench.settings.online import Critic

ROW = Row([1], ((2, 3), (4,)), values={"beta": 0.1, "ended": 1.0})
PAIR = Batch(Given(torch.tensor([-1.0, -2.0, -3.0])), torch.zeros(3), torch.tensor([0, 0, 1]), 2, [ROW])


def of_kto() -> list[dict[str, Any]]:
    own, _ = kto.split(KTO_ROWS)
    _, metrics = kto.loss(kto_batch(own, [-1.0, -2.0, -3.0]), kto.Config(), kl=0.5)
    return [metrics, kto._with_margin(metrics), kto.mismatch(kto_batch(own, [-1.0, -2.0, -3.0]), kto.Config())[1]]


def of_reward_model() -> list[dict[str, Any]]:
    pairs = score_batch([[2.0], [1.0]], {})
    rated = score_batch([[3.0, 1.0]], {"helpfulness": 4})
    return [
        reward_model.loss(pairs, reward_model.Config())[1],
        reward_model.loss(rated, REGRESSION)[1],
        reward_model.loss(rated, reward_model.Config(objective="ordinal", attributes=("helpfulness",), highest=2, likelihood="cumulative"))[1],
        score_diagnostics.ranking(np.array([[2.0, 1.0], [0.5, 1.0]]), np.array([[3, 4], [7, 2]]))["metrics"],
        score_diagnostics.regression(np.array([[2.0], [1.0]]), np.array([[3.0], [1.0]]), ("brevity",))["metrics"],
    ]


def of_rollouts(loss: Callable[[Batch, Any], Any], cfg: Any) -> list[dict[str, Any]]:
    filled = {name: np.zeros(2, np.float32) for name in ("advantages", "values", "returns")}
    experiences = [answer(2, 1.0, sample=i, components={"short": 1.0}, **filled) for i in range(2)]
    measured = online.metrics(experiences)
    return [loss(online_batch(experiences, [-0.5] * 4), cfg)[1], measured]


def of_ppo() -> list[dict[str, Any]]:
    returns = np.array([1.0, 2.0], np.float32)
    experiences = [answer(2, 1.0, returns=returns)]
    arrays = {"values": torch.zeros(2), "returns": torch.ones(2)}
    lesson = Batch(Given(scores_SK=torch.zeros(2, 1)), None, torch.zeros(0), 1, [], arrays)
    learnt = critic.value_loss(lesson, Critic())[1]
    return [*of_rollouts(ppo.loss, ppo_config()), learnt, ppo._critic_metrics(experiences, {**learnt, "grad_norm": 1.0})]


def of_the_best(loss: Callable[[Batch, Any], Any], cfg: Any) -> list[dict[str, Any]]:
    experiences = [answer(2, float(i), sample=i, response=str(i), components={"short": 1.0}) for i in range(2)]
    chosen = best.choose(experiences, distinct=True)
    best.mark(experiences, experiences[1:], experiences[:1])
    return [loss(online_batch(online_dpo.pairs(chosen), [-0.5] * 4), cfg)[1], online.metrics(experiences), chosen.metrics]


REPORTED: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "sft": lambda: [sft.loss(PAIR, sft.Config())[1]],
    "dpo": lambda: [dpo.loss(PAIR, dpo.Config())[1]],
    "orpo": lambda: [orpo.loss(PAIR, orpo.Config())[1]],
    "simpo": lambda: [simpo.loss(PAIR, simpo.Config())[1]],
    "cpo": lambda: [cpo.loss(PAIR, cpo.Config())[1]],
    "spin": lambda: [spin.loss(PAIR, spin.Config())[1], spin._of_opponent([ROW])],
    "distill": lambda: [distill.loss(taught_batch(), distill.Config())[1], distill.of_answers([Answer([1, 2], True)])],
    "kto": of_kto,
    "steerlm2": lambda: [steerlm2.loss(group_batch(), steerlm2.Config())[1]],
    "reward_model": of_reward_model,
    "ppo": of_ppo,
    "grpo": lambda: of_rollouts(grpo.loss, grpo_config()),
    "reinforce": lambda: of_rollouts(reinforce.loss, grpo_config()),
    "online_dpo": lambda: of_the_best(online_dpo.loss, online_dpo_config()),
    "rejection_sampling": lambda: of_the_best(rejection_sampling.loss, rejection_config()),
}


def unknown(reported: Iterable[dict[str, Any]]) -> list[str]:
    """Names that are no constants of the registry, or none at all."""
    return [name for metrics in reported for name in metrics if not isinstance(name, Metric) or find(name) is None]


@pytest.mark.parametrize("algorithm", algorithm_names())
def test_what_an_algorithm_reports_is_registered(algorithm: str) -> None:
    reported = REPORTED[algorithm]()
    assert sum(map(len, reported))
    assert not unknown(reported)


def test_what_an_engine_reports_is_registered() -> None:
    assert not unknown([Profile(1, 1.0, 1, 1.0, 1, 1, 1, 1.0).metrics()])
