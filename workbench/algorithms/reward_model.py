"""Reward models: a score for an answer, learnt from pairs (Bradley-Terry) or from people's ratings (SteerLM's attribute model: a regression, or an ordinal likelihood)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

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
    objective: Literal["ranking", "regression", "ordinal"] = Field(
        default="ranking",
        description="Learn one score from pairs; from ratings one score an attribute, or the probability of each whole rating of an attribute.",
    )
    ranking_loss: Literal["plain", "margin", "scaled"] = Field(
        default="plain", description="Ranking: plain Bradley-Terry; margin and scaled learn from the rows' chosen_reward - rejected_reward as well."
    )
    attributes: tuple[str, ...] = Field(
        default=M.STEERLM, min_length=1, description="Regression and ordinal: the ratings to predict, in the order of the scores."
    )
    likelihood: Literal["cumulative", "categorical"] = Field(
        default="cumulative",
        description="Ordinal: thresholds in order, so that neighbouring ratings are alike; or a softmax that knows no order.",
    )
    lowest: int = Field(default=0, description="Ordinal: the least rating.")
    highest: int = Field(default=4, description="Ordinal: the greatest rating.")

    @field_validator("attributes")
    @classmethod
    def _named_once(cls, attributes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(attributes)) < len(attributes):
            raise ValueError("an attribute is named twice")
        return attributes

    @model_validator(mode="after")
    def _is_a_scale(self) -> Config:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest={self.lowest} is not below highest={self.highest}")
        return self

    @property
    def levels(self) -> int:
        return self.highest - self.lowest + 1


def ROWS(cfg: Config) -> Kind:
    """What it learns from; a function here, since the objective decides."""
    return "preference" if cfg.objective == "ranking" else "rated"


def OUTPUTS(cfg: Config) -> Outputs:
    if cfg.objective == "ranking":
        return Outputs(scores=1)
    each = 1 if cfg.objective == "regression" else cfg.levels - (cfg.likelihood == "cumulative")
    return Outputs(scores=each * len(cfg.attributes))


def check(rows: Sequence[Row], cfg: Config) -> list[str]:
    """What is looked at before the first step. Returns what to warn of.

    Raises:
        ValueError: a row without any rating that is predicted, or with one beyond an ordinal head's levels.
    """
    if cfg.objective == "ranking":
        return []
    ratings_SK = np.array(_ratings(rows, cfg.attributes)) if rows else np.zeros((0, len(cfg.attributes)))
    missing = [name for k, name in enumerate(cfg.attributes) if np.isnan(ratings_SK[:, k]).all()]
    if cfg.objective == "ordinal" and (beyond := (ratings_SK < cfg.lowest) | (ratings_SK > cfg.highest)).any():
        s, k = np.argwhere(beyond)[0]
        raise ValueError(
            f"a row has {cfg.attributes[k]}={ratings_SK[s, k]:g}, the head's levels are {cfg.lowest} to {cfg.highest}: set algorithm.lowest and algorithm.highest"
        )
    return [f"no row has a rating of {', '.join(missing)} (algorithm.attributes): these scores learn nothing"] if missing else []


def loss(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """One value a pair, or one a rating."""
    of = {"ranking": _ranking, "regression": _regression, "ordinal": _ordinal}[cfg.objective]
    return of(batch.scores_SK, batch, cfg)


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
    loss_R = F.reward.masked_squared_error(scores_SK, ratings_SK, ~ratings_SK.isnan())
    return loss_R, {M.LOSS: loss_R, **_errors(scores_SK, ratings_SK, cfg)}


def _ordinal(scores_SK: Tensor, batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    ratings_SA = scores_SK.new_tensor(_ratings(batch.rows, cfg.attributes))
    present_SA = ~ratings_SA.isnan()
    log_probs_SAL = _log_probabilities(scores_SK, cfg)
    loss_R = F.ordinal.negative_log_likelihood(log_probs_SAL[present_SA], ratings_SA[present_SA] - cfg.lowest)
    return loss_R, {M.LOSS: loss_R, **_errors(F.ordinal.expectation(log_probs_SAL) + cfg.lowest, ratings_SA, cfg)}


def _log_probabilities(scores_SK: Tensor, cfg: Config) -> Tensor:
    """Of each attribute's levels: [S, A, L]."""
    return F.ordinal.log_probabilities(scores_SK.view(len(scores_SK), len(cfg.attributes), -1), cfg.likelihood)


def _errors(predicted_SA: Tensor, ratings_SA: Tensor, cfg: Config) -> Metrics:
    error_SA, present_SA = (predicted_SA - ratings_SA).abs(), ~ratings_SA.isnan()
    by_attribute = {M.MAE_OF(name): error_SA[present_SA[:, k], k] for k, name in enumerate(cfg.attributes)}
    return {M.MAE: error_SA[present_SA], **by_attribute}


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
    ratings_BK = np.array(_ratings(rows, cfg.attributes))
    if cfg.objective == "ordinal":
        import torch

        log_probs_BKL = _log_probabilities(torch.from_numpy(np.concatenate(scores)), cfg)
        return diagnostics.ordinal(log_probs_BKL.exp().numpy(), ratings_BK, cfg.attributes, cfg.lowest)
    return diagnostics.regression(np.concatenate(scores), ratings_BK, cfg.attributes)
