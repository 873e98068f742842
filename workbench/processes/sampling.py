"""Sampling: the rollout engine on every rank, answers to prompts that the ranks take from one queue, and answers sampled ahead of learning."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.data.packing import Kept, Row
from workbench.engine import parallel
from workbench.engine.step import Policy
from workbench.processes.phases import PhaseTimes
from workbench.rewards.base import before_stop
from workbench.rollout.ahead import Over
from workbench.rollout.base import Drawn, Ingredients, Profile, Prompt, Rollout, Sampling, find_engine
from workbench.rollout.experience import Experience
from workbench.settings.online import SamplingConfig
from workbench.settings.spec import Experiment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MICROBATCH = 16
"""Finished rollouts that are handed on together."""
Finished = Callable[[Sequence[Experience]], None]
"""Called with some of this rank's answers as they finish, while others are still being sampled."""


def sampling_of(cfg: Drawn, end_tokens: frozenset[int]) -> Sampling:
    """As an engine takes it, with the tokens that end the model's answers."""
    kept = isinstance(cfg, SamplingConfig) and cfg.among_kept
    return Sampling(cfg.max_tokens, cfg.temperature, end_tokens, cfg.top_k, cfg.top_p, cfg.stop_strings, kept)


class Sampler:
    """Answers of the policy. Every rank has one, and all make the same calls.

    `beside_training`: it samples in a thread of its own while the policy learns.
    """

    def __init__(self, spec: Experiment, policy: Policy, directory: Path, tokenizer: PreTrainedTokenizerBase, times: PhaseTimes):
        self._policy, self._tokenizer, self._times = policy, tokenizer, times
        beside_training = spec.rollout.max_staleness > 0
        self._group = parallel.twin_tensor_group() if beside_training else parallel.tensor_group()
        drawn = spec.algorithm if isinstance(spec.algorithm, SamplingConfig) else None
        sampling = drawn and sampling_of(drawn, frozenset())
        ingredients = Ingredients(policy, directory, tokenizer, self._group, spec.rollout.slots, beside_training, sampling)
        self.engine = find_engine(spec.rollout.name).build(ingredients)
        self._queues = itertools.count()
        self._version = -1

    def refit(self, version: int) -> None:
        """The engine's weights are the policy's, which have seen `version` updates."""
        if self._version != version:
            with self._times.timed("refit"):
                self._policy.settle()
                self.engine.update_weights(version)
            self._version = version

    def answers(
        self,
        rows: Sequence[Row],
        samples: int,
        step: int,
        seed: int,
        sampling: Sampling,
        finished: Finished = lambda fresh: None,
        over: Over = lambda: False,
    ) -> list[Experience]:
        """This rank's answers to the rows' prompts, by the weights of the last refit.

        The ranks take prompts from one queue, so that none waits for long answers; once `over()` is true they take no more.
        """
        experiences: list[Experience] = []
        fresh: list[Experience] = []

        def hand_on() -> None:
            fresh.sort(key=lambda e: (e.prompt_index, e.sample))
            finished(fresh)
            experiences.extend(fresh)
            fresh.clear()

        self.engine.resume()
        queue = parallel.shared_queue(len(rows), f"prompts-{step}-{next(self._queues)}", self._group, over)
        prompts = (Prompt(rows[i].prefix, key=i, samples=samples) for i in queue)
        for rollout in self.engine.generate(prompts, sampling, seed * 1_000_003 + max(step - 1, 0)):
            if parallel.tensor_rank() == 0:
                fresh.append(self._experience(rows[rollout.key], rollout, step, sampling))
            if len(fresh) >= MICROBATCH:
                hand_on()
        hand_on()
        self.engine.release()
        return experiences

    def _experience(self, row: Row, rollout: Rollout, step: int, sampling: Sampling) -> Experience:
        def decode(tokens: Sequence[int], **options: bool) -> str:
            return str(self._tokenizer.decode(list(tokens), **options))

        response, scored = before_stop(rollout.tokens, lambda tokens: decode(tokens, skip_special_tokens=True), sampling.stop_strings)
        kept = None if rollout.kept is None else Kept(np.concatenate(rollout.kept), np.array([len(tokens) for tokens in rollout.kept]))
        return Experience(
            step=step,
            prompt_index=rollout.key,
            sample=rollout.sample,
            row=row,
            tokens=rollout.tokens,
            rollout_logprobs=np.array(rollout.logprobs, np.float32),
            finish_reason=rollout.finish_reason,
            prompt=decode(row.prefix),
            response=response,
            pieces=[decode([token]) for token in rollout.tokens],
            weights_version=self._version,
            temperature=sampling.temperature or 1.0,  # greedy answers are measured at 1
            kept=kept,
            scored_tokens=scored,
        )

    def profile(self) -> dict[str, float]:
        """What the engine did since it was asked last, as a step's metrics."""
        done, self.engine.profile = self.engine.profile, Profile()
        return done.metrics()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within: what the engine does belongs to no step."""
        kept, self.engine.profile = self.engine.profile, Profile()
        yield
        self.engine.profile = kept


class WorkLost(RuntimeError):
    """The ranks' shares are not what there was to do."""


def in_order(shares: Sequence[Sequence[Experience]], prompts: int, samples: int) -> list[Experience]:
    """All ranks' answers, prompt by prompt.

    Raises:
        WorkLost: they are not `samples` to each of so many prompts, each once.
    """
    experiences = sorted((e for share in shares for e in share), key=lambda e: (e.prompt_index, e.sample))
    got, wanted = [(e.prompt_index, e.sample) for e in experiences], list(itertools.product(range(prompts), range(samples)))
    if got != wanted:
        missing = sorted({prompt for prompt, _ in set(wanted) - set(got)})
        raise WorkLost(
            f"the ranks were to sample {len(wanted)} answers ({samples} to each of {prompts} prompts) and sampled {[len(share) for share in shares]}, "
            f"{len(set(got) & set(wanted))} of them wanted; prompts without all of theirs: {missing[:8]}{'…' * (len(missing) > 8)}. "
            "The queue in the gang's store was changed from outside, or the engine lost answers: nothing was learnt from them; resume the run"
        )
    return experiences


class SamplerTime:
    """The seconds that a sampler's own thread spent since they were taken last."""

    def __init__(self) -> None:
        self._seconds = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within: what is spent belongs to no step."""
        kept = self._seconds
        yield
        self._seconds = kept

    def take(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds
