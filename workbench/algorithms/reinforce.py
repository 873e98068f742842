"""REINFORCE with a leave-one-out baseline (RLOO: Ahmadian et al., arXiv 2402.14740): an answer against the mean of the prompt's others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench import functional as F
from workbench.algorithms import _online as online
from workbench.algorithms._online import OUTPUTS, OnlineConfig, loss

if TYPE_CHECKING:
    from workbench.algorithms import Metrics, Runtime
    from workbench.rollout.experience import Experience

ROWS = "prompt"
ROLES = ("reward", "reference")
__all__ = ["OUTPUTS", "Config", "loss", "train"]


class Config(OnlineConfig):
    name: Literal["reinforce"] = "reinforce"
    samples_per_prompt: int = Field(4, ge=2, le=256, description="Answers to each prompt; the baseline of each is the others' mean.")


def advantages(experiences: Sequence[Experience], cfg: Config) -> None:
    with_kl = [e.reward - cfg.kl_coefficient * float(e.kl.sum()) for e in experiences]
    online.spread(experiences, F.advantages.leave_one_out(online.by_prompt(experiences, cfg, with_kl)).flatten().tolist())


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    return online.train(rt, loss, advantages)
