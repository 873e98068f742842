"""Contrastive Preference Optimization (CPO; Xu et al., arXiv 2401.08417): DPO with a uniform reference, beside the chosen answers' likelihood."""

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
    name: Literal["cpo"] = "cpo"
    lr: float = Field(default=5e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    beta: float = Field(default=0.1, gt=0, le=100, description="Scale of the rewards: beta times an answer's log-probability.")
    sft_loss_weight: float = Field(default=1.0, ge=0, description="Weight of the chosen answers' negative log-likelihood per token.")
    sft_level: preference.Level = Field(
        default="token",
        description="Whether every chosen answer or, as in TRL and the authors' code, every token of them weighs the same in the likelihood.",
    )


def loss(batch: Batch, cfg: Config, chosen_tokens: float | None = None) -> tuple[Tensor, Metrics]:
    """-log sigmoid(beta (log p(chosen) - log p(rejected))) - w log p(chosen) per token, one value a pair (section 3; the likelihood as in the authors' code).

    Args:
        chosen_tokens: for sft_level=token the mean tokens of the global batch's chosen answers; without it (held-out rows) the microbatch's.
    """
    policy_S = preference.logprobs_of_answers(batch)
    rewards_S = cfg.beta * policy_S
    preference_B = F.preference.dpo(rewards_S[0::2] - rewards_S[1::2], beta=1.0)
    sft_B = preference.sft_loss(batch, cfg.sft_level, chosen_tokens)
    loss_B = preference_B + cfg.sft_loss_weight * sft_B
    return loss_B, {**preference.metrics(loss_B, rewards_S, policy_S), M.PREFERENCE_LOSS: preference_B, M.SFT_LOSS: sft_B}


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    return preference.train(rt, loss)
