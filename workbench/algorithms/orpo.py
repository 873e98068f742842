"""Odds Ratio Preference Optimization (Hong et al., arXiv 2403.07691): preferences and fine-tuning in one loss, without a reference policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench import functional as F
from workbench import metrics as M
from workbench.settings import AlgorithmConfig, Roles
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Batch, Metrics, Runtime

ROWS = "preference"
ROLES: Roles = {}
OUTPUTS = Outputs(logprobs=True)


class Config(AlgorithmConfig):
    name: Literal["orpo"] = "orpo"
    lr: float = Field(default=5e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    odds_weight: float = Field(default=0.1, ge=0, description="lambda: weight of the odds-ratio term beside the chosen answer's likelihood.")


def loss(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """-mean log p(chosen) - lambda log sigmoid(log odds(chosen) - log odds(rejected)), one value a pair (eq. 6).

    p is an answer's probability per token, its odds p / (1 - p).
    """
    tokens_S = F.sequences.count_by_sequence(batch.sequence_N, batch.num_sequences)
    mean_S = F.sequences.sum_by_sequence(batch.logprobs_N, batch.sequence_N, batch.num_sequences) / tokens_S
    odds_S = mean_S - (-mean_S.exp().clamp(max=1 - 1e-6)).log1p()
    margin_B = odds_S[0::2] - odds_S[1::2]
    odds_B, sft_B = F.preference.dpo(margin_B, beta=1.0), -mean_S[0::2]
    loss_B = sft_B + cfg.odds_weight * odds_B
    accuracy_B = (margin_B > 0).float() + 0.5 * (margin_B == 0)
    return loss_B, {M.LOSS: loss_B, M.SFT_LOSS: sft_B, M.PREFERENCE_LOSS: odds_B, M.ACCURACY: accuracy_B, M.REWARDS_MARGIN: margin_B}


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    for rows in rt.batches():
        yield rt.update(rows, loss)
