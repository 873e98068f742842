"""Distillation: the policy learns a teacher's distribution at each token of the data, not the data's token alone (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from workbench import functional as F
from workbench import metrics as M
from workbench.settings import AlgorithmConfig, Frozen, Roles
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Batch, Metrics, Runtime
    from workbench.data.rows import Kind

ROLES: Roles = {"teacher": "frozen"}


class Teacher(Frozen):
    """The model that is learnt from, and when it is asked."""

    source: str | None = Field(
        default=None, min_length=1, description="The teacher, with the policy's vocabulary: a Hugging Face directory, a hub id or a .gguf file."
    )
    computed: Literal["each_step", "once", "in_rows"] = Field(
        default="each_step",
        description="When its probabilities are computed: for each step's rows, in the policy's processes; once for all rows, kept on the disk; or not at"
        " all, since they stand in the rows (NeMo-Aligner's format).",
    )
    top_k: int = Field(default=64, ge=1, description="How many of its likeliest tokens are learnt at each place; all others are one bucket.")


class Config(AlgorithmConfig):
    name: Literal["distill"] = "distill"
    lr: float = Field(default=3e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    teacher: Teacher = Field(default=Teacher(), description="The model that is learnt from.")
    divergence: Literal["forward_kl", "reverse_kl", "jensen_shannon"] = Field(
        default="forward_kl",
        description="From the teacher's distribution to the policy's: forward_kl covers all that the teacher may say, reverse_kl keeps to what it surely"
        " says, jensen_shannon is between them.",
    )
    teacher_share: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="jensen_shannon: the teacher's share of the mixture (GKD's beta): near 0 it learns as forward_kl, near 1 as reverse_kl.",
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description="Both distributions are softmax(logits / temperature), and the divergence is times its square, which keeps the gradients' scale.",
    )
    sft_loss_weight: float = Field(default=0.0, ge=0, description="Weight of the data's own negative log-likelihood, added to the loss.")

    @model_validator(mode="after")
    def _rows_have_one_temperature(self) -> Self:
        if self.teacher.computed == "in_rows" and self.temperature != 1:
            raise ValueError(
                f"temperature={self.temperature} with teacher.computed=in_rows: the rows tell the mass of the teacher's other tokens at temperature 1 alone;"
                " set temperature=1, or let the teacher be computed (each_step, once)"
            )
        if self.teacher.computed == "in_rows" and self.teacher.source is not None:
            raise ValueError("teacher.computed=in_rows asks no model: leave teacher.source out, or set teacher.computed to each_step or once")
        return self

    def problems(self) -> list[tuple[str, str]]:
        if self.teacher.computed != "in_rows" and self.teacher.source is None:
            return [("teacher.source", "distill learns from a teacher: name its directory or hub id, or set algorithm.teacher.computed=in_rows")]
        return []

    def with_absolute_paths(self, absolute: Callable[[str], str]) -> Self:
        source = self.teacher.source
        return self.model_copy(update={"teacher": self.teacher.model_copy(update={"source": source and absolute(source)})})


def ROWS(cfg: Config) -> Kind:
    return "taught" if cfg.teacher.computed == "in_rows" else "conversation"


def OUTPUTS(cfg: Config) -> Outputs:
    return Outputs(logprobs=True, at="teacher_tokens", temperature=cfg.temperature)


def loss(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """temperature^2 x divergence + sft_loss_weight x -log p(token), one value a learnt token; see `workbench.functional.distillation`."""
    teacher_NK, teacher_rest_N = batch.arrays["teacher_top_logprobs"], batch.arrays["teacher_rest"]
    divergence_N = F.distillation.divergence(batch.at.logprobs_NK, batch.at.rest_N, teacher_NK, teacher_rest_N, cfg.divergence, cfg.teacher_share)
    nll_N = -batch.logprobs_N
    loss_N = cfg.temperature**2 * divergence_N + cfg.sft_loss_weight * nll_N
    return loss_N, {
        M.LOSS: loss_N,
        M.TEACHER_DIVERGENCE: divergence_N,
        M.SFT_LOSS: nll_N,
        M.TEACHER_MASS: teacher_NK.exp().sum(1),
        M.LOGPROBS: batch.logprobs_N,
    }


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    for rows in rt.batches():
        yield rt.update(rt.with_teacher(rows), loss)
