"""Distillation: the policy learns a teacher's distribution at each token of the data, not the data's token alone (Hinton et al., arXiv 1503.02531).

With `on_policy.fraction` above 0 it is on-policy distillation (GKD; Agarwal et al., arXiv 2306.13649, Algorithm 1): by a draw a step, the step learns at the tokens
of answers that the policy itself gives to the rows' prompts, which are what it will be asked to continue.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from workbench import functional as F
from workbench import metrics as M
from workbench.data.packing import Row, learnt_spans
from workbench.settings import AlgorithmConfig, Frozen, Roles
from workbench.settings.online import Processes
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Answer, Batch, Metrics, Runtime
    from workbench.data.rows import Kind

ROLES: Roles = {"teacher": "frozen"}
DRAW = 2306_13649
"""Keeps the draws of Algorithm 1 apart from the other draws of a run's seed."""


class Teacher(Processes):
    """The model that is learnt from, when it is asked, and where it is served."""

    source: str | None = Field(
        default=None, min_length=1, description="The teacher, with the policy's vocabulary: a Hugging Face directory, a hub id or a .gguf file."
    )
    computed: Literal["each_step", "once", "in_rows"] = Field(
        default="each_step",
        description="When its probabilities are computed: for each step's rows, in the policy's processes; once for all rows, kept on the disk; or not at"
        " all, since they stand in the rows (NeMo-Aligner's format).",
    )
    top_k: int = Field(default=64, ge=1, description="How many of its likeliest tokens are learnt at each place; all others are one bucket.")


class OnPolicy(Frozen):
    """Which steps learn from the policy's own answers, and how those are sampled."""

    fraction: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="The probability that a step learns from the policy's own answers to its rows' prompts (GKD's lambda), by a draw from seed and step; 0: the"
        " data's answers alone, 1: its own alone.",
    )
    max_tokens: int = Field(default=256, ge=1, description="Longest answer of its own in tokens.")
    temperature: float = Field(default=1.0, ge=0, le=10, description="At which its answers are sampled; 0 takes the likeliest token each time.")
    top_k: int = Field(default=0, ge=0, description="Sample its answers among the k likeliest tokens; 0: all.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Sample among the likeliest tokens that make up this share.")
    stop_strings: tuple[str, ...] = Field(default=(), description="Texts that end an answer of its own, beside the model's own end token.")


class Config(AlgorithmConfig):
    name: Literal["distill"] = "distill"
    lr: float = Field(default=3e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    teacher: Teacher = Field(default=Teacher(), description="The model that is learnt from.")
    served: tuple[Literal["teacher"], ...] = Field(
        default=(), description="[teacher]: it answers behind PyTriton in processes of its own; empty: in the policy's own processes and layout."
    )
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
    sft_loss_weight: float = Field(
        default=0.0, ge=0, description="Weight of the data's own negative log-likelihood, added to the loss; not where the policy gave the answers."
    )
    on_policy: OnPolicy = Field(default=OnPolicy(), description="Learning from the policy's own answers.")

    @property
    def max_tokens(self) -> int:
        """The longest answer that is sampled to a row's prompt; 0: none is."""
        return self.on_policy.max_tokens if self.on_policy.fraction else 0

    @model_validator(mode="after")
    def _rows_have_one_temperature(self) -> Self:
        if self.teacher.computed == "in_rows" and self.temperature != 1:
            raise ValueError(
                f"temperature={self.temperature} with teacher.computed=in_rows: the rows tell the mass of the teacher's other tokens at temperature 1 alone;"
                " set temperature=1, or let the teacher be computed (each_step, once)"
            )
        if self.teacher.computed == "in_rows" and self.served:
            raise ValueError(
                "served=[teacher] with teacher.computed=in_rows, which asks no model: leave served out, or set teacher.computed to each_step or once"
            )
        if self.teacher.computed == "in_rows" and self.teacher.source is not None:
            raise ValueError("teacher.computed=in_rows asks no model: leave teacher.source out, or set teacher.computed to each_step or once")
        return self

    @model_validator(mode="after")
    def _own_answers_are_taught(self) -> Self:
        if self.on_policy.fraction and self.teacher.computed != "each_step":
            raise ValueError(
                f"on_policy.fraction={self.on_policy.fraction:g} with teacher.computed={self.teacher.computed}: what the policy answers is not known before its step,"
                " so the teacher is asked then; set teacher.computed=each_step and teacher.source, or on_policy.fraction=0"
            )
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


def on_policy(cfg: Config, step: int, seed: int) -> bool:
    """Whether step `step` (from 0) learns from the policy's own answers: u ~ Uniform(0, 1) is below the fraction (GKD, Algorithm 1). A function of its arguments alone."""
    return bool(np.random.default_rng((seed, step, DRAW)).random() < cfg.on_policy.fraction)


def prompt(row: Row) -> Row:
    """What stands before the last answer of a row that is learnt.

    Raises:
        ValueError: nothing does, as in text without turns.
    """
    start, _ = learnt_spans(row)[-1]
    if start == 0:
        raise ValueError(
            "algorithm.on_policy.fraction above 0 needs a prompt before each row's last answer, for the policy to answer; a row is text without turns:"
            " use conversations, or on_policy.fraction=0"
        )
    return dataclasses.replace(row, prefix=row.prefix[:start], learn=())


def answered(prompts: Sequence[Row], answers: Sequence[Answer]) -> list[Row]:
    """Prompts with the answers that the policy gave, each of whose tokens is learnt at."""
    return [dataclasses.replace(row, branches=(answer.tokens,)) for row, answer in zip(prompts, answers, strict=True)]


def check(rows: Sequence[Row], cfg: Config) -> list[str]:
    """Nothing to warn of. Raises ValueError as `prompt` does, where the policy will answer."""
    if cfg.on_policy.fraction:
        for row in rows:
            prompt(row)
    return []


def loss_of_own(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """temperature^2 x divergence, one value a learnt token; see `workbench.functional.distillation`. Of answers of the policy's own this is all: no gradient
    goes through their sampling (GKD, section 3)."""
    teacher_NK, teacher_rest_N = batch.arrays["teacher_top_logprobs"], batch.arrays["teacher_rest"]
    divergence_N = F.distillation.divergence(batch.at.logprobs_NK, batch.at.rest_N, teacher_NK, teacher_rest_N, cfg.divergence, cfg.teacher_share)
    loss_N = cfg.temperature**2 * divergence_N
    return loss_N, {
        M.LOSS: loss_N,
        M.TEACHER_DIVERGENCE: divergence_N,
        M.TEACHER_MASS: teacher_NK.exp().sum(1),
        M.LOGPROBS: batch.logprobs_N,
    }


def loss(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """temperature^2 x divergence + sft_loss_weight x -log p(token), one value a learnt token of the data."""
    taught_N, metrics = loss_of_own(batch, cfg)
    nll_N = -batch.logprobs_N
    loss_N = taught_N + cfg.sft_loss_weight * nll_N
    return loss_N, {**metrics, M.LOSS: loss_N, M.SFT_LOSS: nll_N}


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    own = rt.own_answers(cfg.on_policy) if cfg.on_policy.fraction else None
    for rows in rt.batches():
        if own is None:
            yield rt.update(rt.with_teacher(rows), loss)
        elif on_policy(cfg, rt.step, rt.seed):
            prompts = [prompt(row) for row in rows]
            answers = own.answers(prompts)
            yield {**rt.update(rt.with_teacher(answered(prompts, answers)), loss_of_own), **of_answers(answers)}
        else:
            yield {**rt.update(rt.with_teacher(rows), loss), M.ON_POLICY: 0.0}


def of_answers(answers: Sequence[Answer]) -> Metrics:
    """What is reported of a step's own answers: their length, and how many of them ended."""
    return {
        M.ON_POLICY: 1.0,
        M.GENERATION_LENGTH: sum(len(answer.tokens) for answer in answers) / len(answers),
        M.PROPERLY_ENDED: sum(answer.ended for answer in answers) / len(answers),
    }
