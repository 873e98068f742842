"""Measurements on held-out rows: the loss's metrics, what an algorithm makes of the outputs, held-out rollouts, and a few answers to read."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypedDict, cast

import numpy as np

from workbench import metrics as M
from workbench.algorithms import Algorithm
from workbench.data.dataset import Dataset
from workbench.data.packing import Row
from workbench.data.tokenizer import decode
from workbench.engine import parallel
from workbench.engine.batch import Given, Metrics
from workbench.engine.step import Policy
from workbench.processes.online import Online
from workbench.processes.opponent import Opponent
from workbench.processes.rank import Rank
from workbench.processes.reference_cache import measured_by_reference
from workbench.rollout.base import Prompt, Sampling
from workbench.rollout.engines.megatron import Engine
from workbench.rollout.experience import Experience, lengths, mean_rewards
from workbench.rundir import beats
from workbench.settings.spec import Experiment

SEED = 0
"""Of all draws for validation: each is answered from the same ones."""


def rows_of(algorithm: Algorithm, spec: Experiment, data: Dataset) -> tuple[list[Row], list[Row]]:
    """The training rows and those to be measured, as the algorithm learns from them."""
    make: Callable[..., list[Row]] = getattr(algorithm, "examples", lambda rows, cfg: list(rows))
    train, held_out = (make(rows, spec.algorithm) for rows in (data.train, data.validation))
    return train, held_out[: spec.validation.max_rows]


class Sample(TypedDict):
    """An answer to read; `tokens` is their number."""

    prompt: str
    response: str
    tokens: int
    finish_reason: str


class Validation:
    """What is measured of a policy on held-out rows. All ranks make the same calls.

    `prompts` are the rows' prompts as tokens; `online` is there for algorithms that learn from rollouts; `opponent` gives the opponent of those that have one.
    """

    def __init__(
        self,
        rank: Rank,
        algorithm: Algorithm,
        policy: Policy,
        rows: Sequence[Row],
        prompts: Sequence[list[int]],
        online: Online | None,
        opponent: Callable[[], Opponent],
    ):
        self._rank, self._algorithm, self._policy, self._online = rank, algorithm, policy, online
        self.rows, self._prompts, self._opponent = rows, prompts, opponent

    def measure(self, step: int) -> Metrics:
        """Measure, and emit it as the validation of this step. Returns the metrics."""
        with beats.doing("validation"):
            started = time.perf_counter()
            diagnostics: dict[str, object] = {}
            if self._online:
                metrics, samples = self._rollouts(self._online)
            else:
                metrics, diagnostics = self._losses()
                samples = self._answers()
            if samples:
                metrics[M.ANSWER_TOKENS_MEAN] = sum(sample["tokens"] for sample in samples) / len(samples)
                metrics[M.ANSWERS_ENDED] = sum(sample["finish_reason"] == "stop" for sample in samples) / len(samples)
            metrics[M.TIME_OF("validation")] = time.perf_counter() - started
            more = {"diagnostics": diagnostics} if diagnostics else {}
            self._rank.emit("validation", step=step, metrics=metrics, samples=samples, **more)
            return metrics

    def _losses(self) -> tuple[Metrics, dict[str, object]]:
        """The loss's metrics, with those of the diagnostics, and the diagnostics."""
        if not self.rows:
            return {}, {}
        outputs: dict[int, Given[np.ndarray]] = {}
        prepare: Callable[..., list[Row]] | None = getattr(self._algorithm, "held_out", None)
        rows = prepare(self.rows, self._opponent(), self._policy.algorithm) if prepare else self.rows
        if self._policy.snapshot:  # the reference may have moved
            rows = measured_by_reference(rows, self._policy)
        metrics = self._policy.evaluate(rows, self._algorithm.loss, outputs)
        diagnose: Callable[..., dict[str, object]] | None = getattr(self._algorithm, "diagnose", None)
        if diagnose is None:
            return metrics, {}
        whole = parallel.from_last_stage({i: output for part in parallel.gather_over_data(outputs) for i, output in part.items()})
        diagnostics = diagnose(self.rows, [whole[i] for i in range(len(self.rows))], self._rank.spec.algorithm)
        return metrics | cast(Metrics, diagnostics.pop("metrics", {})), diagnostics

    def _rollouts(self, online: Online) -> tuple[Metrics, list[Sample]]:
        """The mean known reward of one sampled answer to each held-out prompt, always from the same draws, and some of the answers."""
        if not self.rows:
            return {}, []
        experiences = online.held_out(self.rows, SEED)
        metrics: Metrics = {**mean_rewards(experiences), **lengths(experiences)}
        metrics[M.PROPERLY_ENDED] = sum(e.finish_reason == "stop" for e in experiences) / len(experiences)
        shown = experiences[: self._rank.spec.validation.samples]
        return metrics, [_read(e) for e in shown]

    def _answers(self) -> list[Sample]:
        """Greedy answers to held-out prompts, where the layout lets one rank's layers see a token from end to end."""
        model, tokenizer = self._rank.spec.model, self._rank.tokenizer
        if self._policy.wanted.scores or model.pipeline_parallel > 1 or model.expert_parallel > 1:
            return []
        self._policy.settle()
        mine = self._prompts[parallel.data_rank() :: parallel.data_size()]
        sampling = Sampling(self._rank.spec.validation.sample_tokens, temperature=0, stop_tokens=self._rank.end_tokens)
        prompts = [Prompt(prompt, key) for key, prompt in enumerate(mine)]
        rollouts = sorted(Engine(self._policy.chunks[0]).generate(prompts, sampling, SEED), key=lambda rollout: rollout.key)
        answered: list[Sample] = [
            {
                "prompt": decode(tokenizer, prompt),
                "response": decode(tokenizer, rollout.tokens, skip_special_tokens=True),
                "tokens": len(rollout.tokens),
                "finish_reason": rollout.finish_reason,
            }
            for prompt, rollout in zip(mine, rollouts, strict=True)
        ]
        shares = parallel.gather_over_data(answered)
        return [shares[i % len(shares)][i // len(shares)] for i in range(len(self._prompts))]


def _read(e: Experience) -> Sample:
    return {"prompt": e.prompt, "response": e.response, "tokens": len(e.tokens), "finish_reason": e.finish_reason}
