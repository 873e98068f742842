"""Direct Preference Optimization (Rafailov et al., arXiv 2305.18290) and its family, chosen by `preference_loss`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from workbench import functional as F
from workbench import metrics as M
from workbench.algorithms import _preference as preference
from workbench.settings import AlgorithmConfig, Roles
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Batch, Metrics, Runtime

ROWS = "preference"
ROLES: Roles = {"reference": "frozen"}
OUTPUTS = Outputs(logprobs=True)


class FamilyConfig(AlgorithmConfig):
    """Settings of the loss, for every algorithm that learns by it."""

    preference_loss: Literal["dpo", "cdpo", "ipo", "rpo_fwd_kl", "rpo_bwd_kl", "rpo_sq", "hinge"] = Field(
        default="dpo",
        description="Which loss of the family; the rpo ones learn from the rows' rewards as well. rpo_fwd_kl is, as in NeMo-Aligner, the KL from"
        " the learnt preference to the given one, rpo_bwd_kl the reverse.",
    )
    beta: float = Field(default=0.1, gt=0, le=100, description="How strongly the policy is held to the reference.")
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description="cdpo: the probability that a preference label is flipped.")
    eta: float = Field(default=1.0, gt=0, description="rpo: scale of the difference of the given rewards.")
    sft_loss_weight: float = Field(default=0.0, ge=0, description="Weight of the chosen answer's negative log-likelihood, added to the loss.")
    length_normalized: bool = Field(
        default=False, description="Use log-probabilities per token instead of per answer; with ipo that is IPO as its authors and TRL compute it."
    )

    @model_validator(mode="after")
    def _smoothing_goes_with_cdpo(self) -> Self:
        if (self.label_smoothing > 0) != (self.preference_loss == "cdpo"):
            raise ValueError(
                f"label_smoothing={self.label_smoothing} with preference_loss={self.preference_loss}: cdpo needs a smoothing above 0, the others none"
            )
        return self


class Config(FamilyConfig):
    name: Literal["dpo"] = "dpo"
    lr: float = Field(default=5e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")


def loss(batch: Batch, cfg: FamilyConfig) -> tuple[Tensor, Metrics]:
    """One value a pair. Rewards are beta times the log-ratio policy / reference, so the margin is beta D."""
    policy_S = preference.logprobs_of_answers(batch, cfg.length_normalized)
    rewards_S = cfg.beta * (policy_S - preference.reference_of_answers(batch, cfg.length_normalized))
    margin_B = rewards_S[0::2] - rewards_S[1::2]
    preference_B = _preference_loss(margin_B / cfg.beta, batch, cfg)
    sft_B = -policy_S[0::2]
    loss_B = preference_B + cfg.sft_loss_weight * sft_B
    return loss_B, {**preference.metrics(loss_B, rewards_S, policy_S), M.PREFERENCE_LOSS: preference_B, M.SFT_LOSS: sft_B}


def _preference_loss(delta_B: Tensor, batch: Batch, cfg: FamilyConfig) -> Tensor:
    if cfg.preference_loss in ("dpo", "cdpo"):
        return F.preference.dpo(delta_B, cfg.beta, cfg.label_smoothing)
    if cfg.preference_loss == "ipo":
        return F.preference.ipo(delta_B, cfg.beta)
    if cfg.preference_loss == "hinge":
        return F.preference.hinge(delta_B, cfg.beta)
    reward_delta_B = batch.value("chosen_reward") - batch.value("rejected_reward")
    if cfg.preference_loss == "rpo_sq":
        return F.preference.rpo_sq(delta_B, reward_delta_B, cfg.beta, cfg.eta)
    return F.preference.rpo_kl(delta_B, reward_delta_B, cfg.beta, cfg.eta, forward=cfg.preference_loss == "rpo_fwd_kl")


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    for rows in rt.batches():
        yield rt.update(rows, loss)
