"""Simple Preference Optimization (SimPO; Meng et al., arXiv 2405.14734): rewards are log-probabilities per token, without a reference policy."""

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
    name: Literal["simpo"] = "simpo"
    lr: float = Field(default=5e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    beta: float = Field(default=2.0, gt=0, le=100, description="Scale of the rewards: beta times an answer's log-probability per token.")
    gamma: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="By how much the chosen answer's reward is to be higher; the authors choose gamma / beta from 0.3 to 1.6.",
    )
    sft_loss_weight: float = Field(
        default=0.0, ge=0, description="Weight of the chosen answer's negative log-likelihood per token, added to the loss."
    )


def loss(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """-log sigmoid(beta (log p(chosen) - log p(rejected)) - gamma), log p per token; one value a pair (eq. 6)."""
    policy_S = preference.logprobs_of_answers(batch, per_token=True)
    rewards_S = cfg.beta * policy_S
    preference_B = F.preference.dpo(rewards_S[0::2] - rewards_S[1::2] - cfg.gamma, beta=1.0)
    sft_B = -policy_S[0::2]
    loss_B = preference_B + cfg.sft_loss_weight * sft_B
    return loss_B, {**preference.metrics(loss_B, rewards_S, policy_S), M.PREFERENCE_LOSS: preference_B, M.SFT_LOSS: sft_B}


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    for rows in rt.batches():
        yield rt.update(rows, loss)
