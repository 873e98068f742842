"""Online DPO (Guo et al., "Direct Language Model Alignment from Online AI Feedback", arXiv 2402.04792): DPO's loss on pairs of the policy's own answers.

At each step the policy answers each prompt several times, the reward (a judge's verdicts, in the paper) rates the answers, and the best and the worst of
a prompt are the pair to learn from, against the frozen reference (algorithm 1; the paper draws two answers, and learns by DPO, IPO or SLiC).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench.algorithms import _best as best
from workbench.algorithms import _online as online
from workbench.algorithms import dpo
from workbench.settings import Roles
from workbench.settings.online import ReferencedConfig
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Batch, Metrics, Runtime
    from workbench.rollout.experience import Experience

ROWS = "prompt"
ROLES: Roles = {"reward": "frozen", "reference": "frozen"}
OUTPUTS = Outputs(logprobs=True)


class Config(best.BestConfig, dpo.FamilyConfig, ReferencedConfig):
    answers_in_unit = 2

    name: Literal["online_dpo"] = "online_dpo"
    lr: float = Field(default=5e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    samples_per_prompt: int = Field(
        default=4, ge=2, le=256, description="Answers to each prompt, the best and the worst of which are a pair; the paper draws 2."
    )


def loss(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """DPO's, one value a pair: `workbench.algorithms.dpo.loss`, with the reference's log-probabilities as the rollouts have them."""
    return dpo.loss(dataclasses.replace(batch, reference_N=batch.arrays["reference_logprobs"]), cfg)


def pairs(choice: best.Choice) -> list[Experience]:
    """The answers that are learnt from: chosen, rejected, chosen, …, each with the rewards of both, which the rpo losses read."""
    learnt: list[Experience] = []
    for chosen, rejected in choice.pairs:
        rewards = {"chosen_reward": chosen.known("reward"), "rejected_reward": rejected.known("reward")}
        row = dataclasses.replace(chosen.row, values={**chosen.row.values, **rewards})
        learnt += [dataclasses.replace(e, row=row) for e in (chosen, rejected)]
    return learnt


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    for rows in rt.batches():
        experiences = online.sampled(rt, rows)
        choice = best.choose(experiences, distinct=True)
        best.mark(experiences, [chosen for chosen, _ in choice.pairs], [rejected for _, rejected in choice.pairs])
        rt.online.keep(experiences)
        learnt = rt.online.learn(pairs(choice), loss) if choice.pairs else {}
        yield {**learnt, **online.metrics(experiences), **choice.metrics}
