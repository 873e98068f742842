"""REINFORCE with a leave-one-out baseline (RLOO: Ahmadian et al., arXiv 2402.14740): an answer against the mean of the prompt's others."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench import functional as F
from workbench.algorithms import _online as online
from workbench.algorithms._online import OUTPUTS, loss
from workbench.settings import Roles
from workbench.settings.online import OnlineConfig

if TYPE_CHECKING:
    from workbench.algorithms import Metrics, Runtime
    from workbench.rollout.experience import Experience

ROWS = "prompt"
ROLES: Roles = {"reward": "frozen", "reference": "frozen"}
__all__ = ["OUTPUTS", "Config", "loss", "train"]


class Config(OnlineConfig):
    name: Literal["reinforce"] = "reinforce"
    samples_per_prompt: int = Field(default=4, ge=2, le=256, description="Answers to each prompt; the baseline of each is the others' mean.")
    kl_level: Literal["token", "answer"] = Field(
        default="token", description="The KL penalty of an answer: the mean over its tokens, as in NeMo-Aligner, or their sum, as in RLOO and TRL."
    )


def advantages(experiences: Sequence[Experience], cfg: OnlineConfig, kl_level: Literal["token", "answer"] = "token") -> None:
    def with_kl(e: Experience) -> float:
        kl = e.known("kl")
        return e.known("reward") - cfg.kl_coefficient * float(kl.mean() if kl_level == "token" else kl.sum())

    online.against_prompt(experiences, with_kl, F.advantages.leave_one_out)


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    return online.train(rt, loss, functools.partial(advantages, kl_level=cfg.kl_level))
