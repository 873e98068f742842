"""Group Relative Policy Optimization (Shao et al., arXiv 2402.03300): an answer against the mean and deviation of its prompt's answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench import functional as F
from workbench import metrics as M
from workbench.algorithms import _online as online
from workbench.algorithms._online import OUTPUTS
from workbench.settings import Roles
from workbench.settings.online import OnlineConfig

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Batch, Metrics, Runtime
    from workbench.rollout.experience import Experience

ROWS = "prompt"
ROLES: Roles = {"reward": "frozen", "reference": "frozen"}
__all__ = ["OUTPUTS", "Config", "loss", "train"]


class Config(OnlineConfig):
    name: Literal["grpo"] = "grpo"
    samples_per_prompt: int = Field(default=8, ge=2, le=256, description="Answers to each prompt: the group.")
    scale_by_deviation: bool = Field(default=True, description="Divide by the group's deviation; false only subtracts its mean (Dr. GRPO).")
    loss_level: Literal["token", "sequence"] = Field(default="token", description="Whether every token or every answer weighs the same.")
    kl_estimator: Literal["k1", "abs", "k2", "k3"] = Field(default="k3", description="How the KL of a token, a term of the loss here, is estimated.")


def loss(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """The clipped surrogate plus the KL to the reference, one value a token or an answer's mean."""
    learn_N = batch.arrays["learn"]
    loss_N, metrics = online.loss(batch, cfg)
    kept = learn_N > 0
    kl_N = F.kl.kl(batch.logprobs_N, batch.arrays["reference_logprobs"], cfg.kl_estimator, cfg.kl_clamped)[kept]
    loss_N = loss_N + cfg.kl_coefficient * kl_N
    if cfg.loss_level == "sequence":
        sequence_N = batch.sequence_N[kept]
        count_S = F.sequences.count_by_sequence(sequence_N, batch.num_sequences)
        loss_S = F.sequences.sum_by_sequence(loss_N, sequence_N, batch.num_sequences) / count_S.clamp(min=1)
        return loss_S[count_S > 0], {**metrics, M.LOSS: loss_S[count_S > 0]}
    return loss_N, {**metrics, M.LOSS: loss_N}


def advantages(experiences: Sequence[Experience], cfg: Config) -> None:
    def normalised(rewards_PK: Tensor) -> Tensor:
        return F.advantages.group_normalised(rewards_PK, cfg.scale_by_deviation)

    online.against_prompt(experiences, lambda e: e.known("reward"), normalised)


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    return online.train(rt, loss, advantages)
