"""Reward models: a score for an answer, learnt from pairs (Bradley-Terry) or from people's ratings (SteerLM's attribute model)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, field_validator

from workbench import functional as F
from workbench import metrics as M
from workbench.monitoring import score_diagnostics as diagnostics
from workbench.settings import AlgorithmConfig, Roles
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Batch, Given, Metrics, Runtime
    from workbench.data.packing import Row
    from workbench.data.readers import Kind

ROLES: Roles = {}


class Config(AlgorithmConfig):
    name: Literal["reward_model"] = "reward_model"
    lr: float = Field(default=5e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    objective: Literal["ranking", "regression"] = Field(
        default="ranking", description="Learn one score from pairs, or one score an attribute from ratings."
    )
    ranking_loss: Literal["plain", "margin", "scaled"] = Field(
        default="plain", description="Ranking: plain Bradley-Terry; margin and scaled learn from the rows' chosen_reward - rejected_reward as well."
    )
    attributes: tuple[str, ...] = Field(
        default=M.STEERLM, min_length=1, description="Regression: the ratings to predict, in the order of the scores."
    )

    @field_validator("attributes")
    @classmethod
    def _named_once(cls, attributes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(attributes)) < len(attributes):
            raise ValueError("an attribute is named twice")
        return attributes


def ROWS(cfg: Config) -> Kind:
    """What it learns from; a function here, since the objective decides."""
    return "preference" if cfg.objective == "ranking" else "rated"


def OUTPUTS(cfg: Config) -> Outputs:
    return Outputs(scores=1 if cfg.objective == "ranking" else len(cfg.attributes))


def loss(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """One value a pair, or one a rating."""
    return _ranking(batch.scores_SK, batch, cfg) if cfg.objective == "ranking" else _regression(batch.scores_SK, batch, cfg)


def _ranking(scores_SK: Tensor, batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    chosen_B, rejected_B = scores_SK.view(-1, 2).unbind(1)
    if cfg.ranking_loss == "plain":
        loss_B = F.reward.ranking(chosen_B, rejected_B)
    else:
        loss_of = F.reward.ranking_margin if cfg.ranking_loss == "margin" else F.reward.ranking_scaled
        loss_B = loss_of(chosen_B, rejected_B, (batch.value("chosen_reward") - batch.value("rejected_reward")).to(chosen_B))
    margin_B = chosen_B - rejected_B
    return loss_B, {
        M.LOSS: loss_B,
        M.ACCURACY: (margin_B > 0).float() + 0.5 * (margin_B == 0),
        M.REWARDS_CHOSEN_MEAN: chosen_B,
        M.REWARDS_REJECTED_MEAN: rejected_B,
        M.REWARDS_MARGIN: margin_B,
    }


def _regression(scores_SK: Tensor, batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    ratings_SK = scores_SK.new_tensor(_ratings(batch.rows, cfg.attributes))
    present_SK = ~ratings_SK.isnan()
    loss_R = F.reward.masked_squared_error(scores_SK, ratings_SK, present_SK)
    error_SK = (scores_SK - ratings_SK).abs()
    by_attribute = {M.MAE_OF(name): error_SK[present_SK[:, k], k] for k, name in enumerate(cfg.attributes)}
    return loss_R, {M.LOSS: loss_R, M.MAE: error_SK[present_SK], **by_attribute}


def _ratings(rows: Sequence[Row], attributes: Sequence[str]) -> list[list[float]]:
    """Each row's ratings in the attributes' order, NaN where it has none. Raises ValueError for a row with none at all."""
    for row in rows:
        if not any(name in row.values for name in attributes):
            raise ValueError(f"algorithm.attributes={','.join(attributes)}: a row has none of them, only: {', '.join(row.values) or 'no ratings'}")
    return [[row.values.get(name, float("nan")) for name in attributes] for row in rows]


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    for rows in rt.batches():
        yield rt.update(rows, loss)


def diagnose(rows: Sequence[Row], outputs: Sequence[Given[np.ndarray]], cfg: Config) -> dict[str, object]:
    """What held-out scores tell beyond the loss: see `workbench.monitoring.score_diagnostics`.

    Args:
        outputs: what the model gave of each row: the scores [S, K] of its S sequences.
    """
    scores = [given.of("scores_SK") for given in outputs]
    if cfg.objective == "ranking":
        lengths = np.array([[len(branch) for branch in row.branches] for row in rows])
        return diagnostics.ranking(np.array([scores_SK[:, 0] for scores_SK in scores]), lengths)
    return diagnostics.regression(np.concatenate(scores), np.array(_ratings(rows, cfg.attributes)), cfg.attributes)
