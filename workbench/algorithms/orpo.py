"""Odds Ratio Preference Optimization (Hong et al., arXiv 2403.07691): preferences and fine-tuning in one loss, without a reference policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench import functional as F
from workbench import metrics as M
from workbench.algorithms import _preference as preference
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
    length_normalized: bool = Field(default=True, description="Odds of an answer's probability per token, as in TRL; false: of the whole answer's.")
    sft_level: preference.Level = Field(
        default="answer", description="Whether every chosen answer or, as in TRL, every token of them weighs the same in the likelihood."
    )


def loss(batch: Batch, cfg: Config, chosen_tokens: float | None = None) -> tuple[Tensor, Metrics]:
    """-log p(chosen) per token - lambda log sigmoid(log odds(chosen) - log odds(rejected)), one value a pair (eq. 6).

    p is an answer's probability per token, its odds p / (1 - p).

    Args:
        chosen_tokens: for sft_level=token the mean tokens of the global batch's chosen answers; without it (held-out rows) the microbatch's.
    """
    odds_S = F.preference.log_odds(preference.logprobs_of_answers(batch, cfg.length_normalized))
    margin_B = odds_S[0::2] - odds_S[1::2]
    sft_B = preference.sft_loss(batch, cfg.sft_level, chosen_tokens)
    odds_B = F.preference.dpo(margin_B, beta=1.0)
    loss_B = sft_B + cfg.odds_weight * odds_B
    accuracy_B = (margin_B > 0).float() + 0.5 * (margin_B == 0)
    return loss_B, {M.LOSS: loss_B, M.SFT_LOSS: sft_B, M.PREFERENCE_LOSS: odds_B, M.ACCURACY: accuracy_B, M.REWARDS_MARGIN: margin_B}


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    return preference.train(rt, loss)
