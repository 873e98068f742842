"""SteerLM 2: iterated training to match P(answer | attributes, prompt), from answers that were sampled, scored and annotated beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench import functional as F
from workbench import metrics as M
from workbench.settings import AlgorithmConfig, Roles
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Batch, Metrics, Runtime

ROWS = "group"
ROLES: Roles = {"reference": "frozen"}
OUTPUTS = Outputs(logprobs=True)


class Config(AlgorithmConfig):
    """The reference is Q', which sampled the answers: `model.source` is the model that did. Each round samples anew from the model before (`pipeline=steerlm2`)."""

    name: Literal["steerlm2"] = "steerlm2"
    lr: float = Field(default=1e-6, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    global_batch_size: int = Field(
        default=16, ge=1, le=65536, description="Prompts in one optimizer step, each with all its answers, over all ranks."
    )


def loss(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """One value a prompt: see `workbench.functional.steerlm2`."""
    group_S = batch.row_S
    loss_G, distance_G = F.steerlm2.steerlm2(
        batch.logprobs_N,
        batch.reference_logprobs_N,
        batch.branch_value("attribute_logprobs"),
        batch.branch_value("base_logprobs"),
        batch.sequence_N,
        group_S,
        len(batch.rows),
    )
    return loss_G, {M.LOSS: loss_G, M.DISTANCE: distance_G, M.LOGPROBS: batch.logprobs_N}


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    for rows in rt.batches():
        yield rt.update(rows, loss)
