"""Supervised fine-tuning: cross-entropy on the assistant's tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench import metrics as M
from workbench.settings import AlgorithmConfig, Roles
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Batch, Metrics, Runtime

ROWS = "conversation"
ROLES: Roles = {}
OUTPUTS = Outputs(logprobs=True)


class Config(AlgorithmConfig):
    name: Literal["sft"] = "sft"
    lr: float = Field(default=3e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")


def loss(batch: Batch, cfg: AlgorithmConfig) -> tuple[Tensor, Metrics]:
    """-log p(token), one value a learnt token; the mean is taken over the global batch's tokens."""
    nll_N = -batch.logprobs_N
    return nll_N, {M.LOSS: nll_N, M.LOGPROBS: batch.logprobs_N}


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    for rows in rt.batches():
        yield rt.update(rows, loss)
