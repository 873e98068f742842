"""Self-Play Fine-Tuning (SPIN; Chen et al., arXiv 2401.01335): the policy learns to prefer the data's answers to those of its earlier self.

In each iteration an opponent, the policy as it was when the iteration began, answers the prompts of the training rows; the policy then learns from pairs
of a row's own answer and the opponent's, by DPO's loss with the opponent as reference (eq. 4.7). From the second iteration on the pairs of the iteration
before are learnt from as well, against the new opponent, as the paper does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import BeforeValidator, Field

from workbench import functional as F
from workbench import metrics as M
from workbench.algorithms import _preference as preference
from workbench.data.packing import Coverage, Row, batch_indices, learnt_spans
from workbench.settings import AlgorithmConfig, Roles
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Answer, Batch, Metrics, OpponentRuntime, Runtime

ROWS = "conversation"
ROLES: Roles = {"reference": "advancing"}
OUTPUTS = Outputs(logprobs=True)
Drawn = tuple[int, int]
"""A pair: the iteration whose opponent gave the answer, from 0, and the number of the row."""


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else (value,)


Schedule = Annotated[tuple[Annotated[float, Field(gt=0, le=100)], ...], BeforeValidator(_listed)]


class Config(AlgorithmConfig):
    name: Literal["spin"] = "spin"
    lr: float = Field(default=2e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up; the cosine goes over all iterations.")
    lr_by_iteration: Schedule = Field(
        default=(),
        description="The peak learning rate of each iteration, the last also of further ones; empty: lr in all. The paper: [5e-7, 5e-7, 1e-7].",
    )
    beta: Schedule = Field(
        default=(0.1,),
        min_length=1,
        description="How strongly the policy is held to its opponent: a number, or one an iteration, the last also of further ones.",
    )
    iterations: int = Field(default=3, ge=1, le=100, description="How often the policy becomes its own opponent.")
    iteration_steps: int | None = Field(
        default=None,
        ge=1,
        description="Optimizer steps of each iteration; empty: `epochs` passes over its pairs. Only rows that they draw are answered.",
    )
    epochs: int = Field(default=1, ge=1, le=1000, description="Passes over an iteration's pairs; the paper has 2.")
    mix_previous: bool = Field(
        default=True,
        description="From the second iteration on, learn from the pairs of the iteration before too (the paper); false: as NeMo-Aligner.",
    )
    turns: Literal["last", "every"] = Field(
        default="last", description="Of a conversation: the opponent gives the last answer that is learnt, or each of them after the row's own turns."
    )
    max_tokens: int = Field(default=256, ge=1, description="Longest answer of the opponent in tokens.")
    temperature: float = Field(default=1.0, ge=0, le=10, description="Of the opponent's answers; 0 takes the likeliest token each time.")
    top_k: int = Field(default=0, ge=0, description="Sample the opponent's answers among the k likeliest tokens; 0: all.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Sample among the likeliest tokens that make up this share.")
    stop_strings: tuple[str, ...] = Field(default=(), description="Texts that end an opponent's answer, beside the model's own end token.")


def of_iteration(schedule: Sequence[float], number: int) -> float:
    """The value of iteration `number`, from 0."""
    return schedule[min(number, len(schedule) - 1)]


@dataclass(frozen=True)
class Iteration:
    """One iteration's part of the run: `batches` are the pairs of its steps, the first of which is step `first` (from 0); `answered` are the rows to which
    its opponent gives an answer, in the order in which they are first drawn."""

    number: int
    first: int
    batches: Sequence[Sequence[Drawn]]
    answered: Sequence[int]


def plan(cfg: Config, num_rows: int, seed: int) -> list[Iteration]:
    """The whole run, a function of its arguments alone: each pass over an iteration's pairs is a fresh order of them."""
    iterations: list[Iteration] = []
    first, size = 0, cfg.global_batch_size
    for number in range(cfg.iterations):
        pool = [(number, row) for row in range(num_rows)]
        if iterations and cfg.mix_previous:
            pool += [(number - 1, row) for row in iterations[-1].answered]
        steps = cfg.iteration_steps or max(1, cfg.epochs * len(pool) // size)
        if cfg.max_steps is not None:
            steps = min(steps, cfg.max_steps - first)
        if not steps:
            break
        batches = [[pool[i] for i in batch_indices(len(pool), size, step, seed + number)] for step in range(steps)]
        answered = dict.fromkeys(row for batch in batches for sampled, row in batch if sampled == number)
        iterations.append(Iteration(number, first, batches, tuple(answered)))
        first += steps
    return iterations


def coverage(cfg: Config, num_rows: int, seed: int) -> Coverage:
    """How the run's steps go over the training rows."""
    drawn = [row for iteration in plan(cfg, num_rows, seed) for batch in iteration.batches for _, row in batch]
    return Coverage(len(drawn), never=num_rows - len(set(drawn)), last_pass=0, repeated=len(drawn) - len(set(drawn)))


def examples(rows: Sequence[Row], cfg: Config) -> list[Row]:
    """A prompt with the answer that the data has, of each conversation the last that is learnt or every one.

    Raises:
        ValueError: a row that is learnt from its first token on, as text without turns is.
    """
    result: list[Row] = []
    for row in rows:
        parts = learnt_spans(row)
        if parts[0][0] == 0:
            raise ValueError(
                "algorithm=spin needs a prompt before each answer, for its opponent to answer; a row is text without turns: use conversations, or algorithm=sft"
            )
        for start, end in parts if cfg.turns == "every" else parts[-1:]:
            result.append(Row(row.prefix[:start], (row.prefix[start:end],)))
    return result


def pairs(rows: Sequence[Row], answers: Sequence[Answer], beta: float) -> list[Row]:
    """Each prompt with the data's answer and the opponent's."""
    return [
        dataclasses.replace(row, branches=(row.branches[0], answer.tokens), values={"beta": beta, "ended": float(answer.ended)})
        for row, answer in zip(rows, answers, strict=True)
    ]


def held_out(rows: Sequence[Row], opponent: OpponentRuntime, cfg: Config) -> list[Row]:
    """What is measured on held-out rows: pairs with answers of the opponent as it is now."""
    return pairs(rows, opponent.answers_once(rows), of_iteration(cfg.beta, max(0, opponent.version - 1)))


def loss(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """-log sigmoid(beta D), D the difference of the log-ratios policy / opponent of the data's and the opponent's answer; one value a pair.

    Rewards are beta times the log-ratio. The opponent wins a pair where its own answer has the higher reward.
    """
    policy_S = preference.logprobs_of_answers(batch)
    beta_B = batch.value("beta").to(policy_S)
    rewards_S = beta_B.repeat_interleave(2) * (policy_S - preference.reference_of_answers(batch))
    loss_B = F.preference.dpo(rewards_S[0::2] - rewards_S[1::2], beta=1.0)
    of_pairs = preference.metrics(loss_B, rewards_S, policy_S)
    return loss_B, {
        **of_pairs,
        M.REWARDS_ACTUAL_MEAN: of_pairs.pop(M.REWARDS_CHOSEN_MEAN),
        M.REWARDS_GENERATED_MEAN: of_pairs.pop(M.REWARDS_REJECTED_MEAN),
        M.OPPONENT_WIN_RATE: 1 - of_pairs[M.ACCURACY],
    }


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    iterations = plan(cfg, len(rt.rows), rt.seed)
    for iteration in iterations:
        if rt.step >= iteration.first + len(iteration.batches):
            continue
        if rt.opponent.version <= iteration.number:
            _opponents(rt).append(rt.advance_reference())
            if cfg.lr_by_iteration:
                rt.set(lr=of_iteration(cfg.lr_by_iteration, iteration.number))
        learnt = _learnt(cfg, rt, iteration, iterations)
        for batch in iteration.batches[rt.step - iteration.first :]:
            rows = [learnt[each] for each in batch]
            yield {**rt.update(rows, loss), **_of_opponent(rows), M.ITERATION: iteration.number + 1}


def _opponents(rt: Runtime) -> list[str]:
    """The digests of the opponents so far, as they were named when the reference became them."""
    return cast(list[str], rt.state.setdefault("opponents", []))


def _learnt(cfg: Config, rt: Runtime, iteration: Iteration, iterations: Sequence[Iteration]) -> dict[Drawn, Row]:
    """The pairs of an iteration, with the log-probabilities of its opponent."""
    beta, number = of_iteration(cfg.beta, iteration.number), iteration.number

    def answered(of: Iteration) -> list[Row]:
        return [rt.rows[row] for row in of.answered]

    fresh = rt.opponent.answers(answered(iteration), iteration.first, _opponents(rt)[number], f"iteration {number + 1}")
    both = list(zip([(number, row) for row in iteration.answered], pairs(answered(iteration), fresh, beta), strict=True))
    if earlier := {each for batch in iteration.batches for each in batch if each[0] < number}:
        before = iterations[number - 1]
        stored = rt.opponent.earlier(answered(before), before.first, _opponents(rt)[number - 1])
        rows = pairs(answered(before), stored, beta)
        both += [((number - 1, row), pair) for row, pair in zip(before.answered, rows, strict=True) if (number - 1, row) in earlier]
    measured = rt.with_reference([row for _, row in both])
    return {drawn: row for (drawn, _), row in zip(both, measured, strict=True)}


def _of_opponent(rows: Sequence[Row]) -> Metrics:
    """The length of the opponent's answers in a batch, and how many of them ended."""
    return {
        M.GENERATION_LENGTH: sum(len(row.branches[1]) for row in rows) / len(rows),
        M.PROPERLY_ENDED: sum(row.values["ended"] for row in rows) / len(rows),
    }
