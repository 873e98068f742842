"""Rejection sampling, as RAFT (Dong et al., arXiv 2304.06767): the likelihood of the best of each prompt's answers, sampled anew at each step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench.algorithms import _best as best
from workbench.algorithms import _online as online
from workbench.algorithms.sft import loss
from workbench.settings import Roles
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from workbench.algorithms import Metrics, Runtime

ROWS = "prompt"
ROLES: Roles = {"reward": "frozen"}
OUTPUTS = Outputs(logprobs=True)
__all__ = ["OUTPUTS", "Config", "loss", "train"]


class Config(best.BestConfig):
    name: Literal["rejection_sampling"] = "rejection_sampling"
    lr: float = Field(default=3e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    keep_ties: bool = Field(
        default=False,
        description="Learn from the first answer of a prompt whose rewards are all equal; false: nothing is learnt from such a prompt.",
    )


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    for rows in rt.batches():
        experiences = online.sampled(rt, rows)
        choice = best.choose(experiences, keep_ties=rt.settings.keep_ties)
        chosen = [answer for answer, _ in choice.pairs]
        best.mark(experiences, chosen)
        rt.online.keep(experiences)
        learnt = rt.online.learn(chosen, loss) if chosen else {}
        yield {**learnt, **online.metrics(experiences), **choice.metrics}
