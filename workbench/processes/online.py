"""The part of a rank's runtime for algorithms that learn from their own rollouts: sampling, scoring, measuring, learning, keeping."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from workbench.data.packing import Row
from workbench.engine import hf, parallel
from workbench.engine.gather import gathered
from workbench.engine.step import Policy
from workbench.models.connections import connect_roles, traffic
from workbench.models.protocol import Learning, Surroundings
from workbench.rewards import resolve
from workbench.rewards.shaping import shaped
from workbench.rollout.ahead import Ahead, Over
from workbench.rollout.base import Profile, Prompt, Sampling
from workbench.rollout.experience import LEARNT, Experience, fill, trees
from workbench.rundir import beats, rollouts
from workbench.rundir.store import RunDir
from workbench.serve.client import Client
from workbench.settings.outputs import Outputs
from workbench.settings.spec import Experiment, find_algorithm

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from transformers import PreTrainedTokenizerBase

    from workbench.engine.batch import Loss, Metrics

MICROBATCH = 16
"""Finished rollouts that go to the servers in one request."""


class Progress(Protocol):
    """How far the run is, and what comes."""

    total_steps: int

    @property
    def step(self) -> int:
        """Steps done so far."""
        ...

    def batch(self, step: int) -> Sequence[Row]:
        """The prompts of a step, from 0."""
        ...


class Online:
    """`workbench.algorithms.OnlineRuntime`. Every rank of the policy has one; all make the same calls, and hold all experiences of a step."""

    def __init__(self, progress: Progress, run: RunDir, spec: Experiment, policy: Policy, directory: Path, tokenizer: PreTrainedTokenizerBase):
        self.progress, self.run, self.spec, self.policy = progress, run, spec, policy
        self._directory, self._tokenizer = directory, tokenizer
        self._queues = itertools.count()
        self._times: dict[str, float] = defaultdict(float)
        staleness = spec.rollout.max_staleness
        self._group = parallel.twin_tensor_group() if staleness else parallel.tensor_group()
        self.engine = _engine(spec, policy, directory, tokenizer, self._group)
        self._version, self._sampler_s = -1, 0.0
        self._ahead = Ahead(staleness, progress.total_steps, self._refit, self._sampling, self._ahead_of_learning) if staleness else None
        self._kept: Sequence[Experience] = ()
        around = Surroundings(run, spec, spec.model.layout, directory, policy)
        roles = find_algorithm(spec.algorithm.name).ROLES
        self.roles: dict[str, Any] = connect_roles(roles, around, lambda server: Client(run.path, server))
        self.reward = self.roles["reward"]
        shaping = spec.algorithm.shaping  # type: ignore[attr-defined]
        self._shaping = None if shaping is None else resolve.find(shaping, resolve.SHAPING)
        self.critic: Learning | None = self.roles.get("critic")
        self.reference = self.roles["reference"]

    @property
    def settings(self) -> Any:
        """The algorithm's settings as they are now: with what was changed while the run goes on."""
        return self.policy.algorithm

    def rollout(self, rows: Sequence[Row]) -> list[Experience]:
        step = self.progress.step
        with self._timed("generate"):
            if self._ahead:
                if list(map(id, rows)) != list(map(id, self.progress.batch(step))):
                    raise ValueError("rollout.max_staleness is for algorithms that sample each step's own rows, once")
                found = self._ahead.take(step)
                self._ask_about(found)
            else:
                self._refit(step)
                found = self._answers(rows, self.settings.samples_per_prompt, step + 1, self.spec.seed, self._sampling(), self._ask_about)
        return self._scored(found)

    def held_out(self, rows: Sequence[Row], seed: int) -> list[Experience]:
        """One scored answer to each row's prompt, by the weights as they are now."""
        if self._ahead:
            self._ahead.wait()
        kept = dict(self._times), self.engine.profile, self._sampler_s
        self.engine.profile = Profile()
        self._refit(self.progress.step)
        found = self._scored(self._answers(rows, 1, 0, seed, self._sampling()))
        self.measured()  # no step's
        times, self.engine.profile, self._sampler_s = kept
        self._times.update(times)
        return found

    def close(self) -> None:
        """The end of the run: nothing is sampled any more."""
        if self._ahead:
            self._ahead.close()

    def _refit(self, version: int) -> None:
        """The engine's weights are the policy's, which have seen `version` updates."""
        if self._version != version:
            with self._timed("refit"):
                self.policy.settle()
                self.engine.update_weights(version)
            self._version = version

    def _ahead_of_learning(self, step: int, sampling: Sampling, over: Over) -> list[Experience]:
        """Called by the sampler's thread: no collective operation of the other thread's groups, and nothing that it times."""
        started = time.perf_counter()
        found = self._answers(self.progress.batch(step), self.settings.samples_per_prompt, step + 1, self.spec.seed, sampling, over=over)
        self._sampler_s += time.perf_counter() - started
        return found

    def _answers(
        self,
        rows: Sequence[Row],
        samples: int,
        step: int,
        seed: int,
        sampling: Sampling,
        ask: Callable[[list[Experience]], None] = lambda found: None,
        over: Over = lambda: False,
    ) -> list[Experience]:
        """This rank's answers to the rows' prompts. The ranks take prompts from one queue, so that none waits for long answers.

        The requests about finished rollouts go out while others are still being sampled.
        """
        found: list[Experience] = []
        fresh: list[Experience] = []

        def send() -> None:
            fresh.sort(key=lambda e: (e.place, e.sample))
            self.reward.begin(fresh)
            ask(fresh)
            found.extend(fresh)
            fresh.clear()

        self.engine.resume()
        queue = parallel.shared_queue(len(rows), f"prompts-{step}-{next(self._queues)}", self._group, over)
        prompts = (Prompt(rows[i].prefix, key=i, samples=samples) for i in queue)
        for rollout in self.engine.generate(prompts, sampling, seed * 1_000_003 + max(step - 1, 0)):
            if parallel.tensor_rank() == 0:
                fresh.append(self._experience(rows[rollout.key], rollout, step))
            if len(fresh) >= MICROBATCH:
                send()
        send()
        self.engine.release()
        return found

    def _ask_about(self, experiences: Sequence[Experience]) -> None:
        """Ask what only answers that will be learnt from need."""
        for start in range(0, len(experiences), MICROBATCH):
            part = experiences[start : start + MICROBATCH]
            self.reference.begin(part)
            if self.critic:
                self.critic.begin(part)

    def _scored(self, found: Sequence[Experience]) -> list[Experience]:
        """All ranks' answers, prompt by prompt, with their rewards."""
        with self._timed("reward"):
            gathered = [e for part in parallel.gather_over_all(found) for e in part]
            gathered.sort(key=lambda e: (e.place, e.sample))
            self.reward.fill(gathered)
            self._shape(gathered)
        return gathered

    def _shape(self, experiences: Sequence[Experience]) -> None:
        """Each rank shapes some rewards, so that all hold the same even where a function throws dice."""
        if self._shaping is None:
            return
        mine = range(parallel.rank(), len(experiences), parallel.world_size())
        found = {i: shaped(self._shaping, str(self.settings.shaping), experiences[i].answer()) for i in mine}
        for part in parallel.gather_over_all(found):
            for i, (reward, by_token) in part.items():
                experiences[i].reward = reward
                experiences[i].shaped = experiences[i].shaped if by_token is None else by_token

    def _experience(self, row: Row, rollout: Any, step: int) -> Experience:
        def decode(tokens: Sequence[int], **options: Any) -> str:
            return str(self._tokenizer.decode(list(tokens), **options))

        return Experience(
            step=step,
            place=rollout.key,
            sample=rollout.sample,
            row=row,
            tokens=rollout.tokens,
            rollout_logprobs=np.array(rollout.logprobs, np.float32),
            finish_reason=rollout.finish_reason,
            prompt=decode(row.prefix),
            response=decode(rollout.tokens, skip_special_tokens=True),
            pieces=[decode([token]) for token in rollout.tokens],
            weights_version=self._version,
        )

    def _sampling(self) -> Sampling:
        cfg = self.settings
        return Sampling(cfg.max_tokens, cfg.temperature, hf.end_tokens(self._directory), cfg.top_k, cfg.top_p, cfg.stop_strings)

    def measure(self, experiences: Sequence[Experience]) -> None:
        rows = trees(experiences, {})
        with self._timed("logprobs"):
            both = self.policy.outputs(rows, Outputs(logprobs=True, entropy=True))
            fill(experiences, [given.of("logprobs_N") for given in both], "logprobs")
            fill(experiences, [given.of("entropy_N") for given in both], "entropy")
        with self._timed("init_logprobs"):
            self.reference.fill(experiences)

    def values(self, experiences: Sequence[Experience]) -> None:
        assert self.critic is not None
        with self._timed("critic_infer"):
            self.critic.fill(experiences)

    def train_critic(self, experiences: Sequence[Experience]) -> Callable[[], Metrics]:
        assert self.critic is not None
        with self._timed("critic_train"):
            done = self.critic.train(experiences, self.progress.step + 1)

        def wait() -> Metrics:
            with self._timed("critic_wait"):
                return done()

        return wait

    def learn(self, experiences: Sequence[Experience], loss: Loss) -> Metrics:
        """As the protocol has it; a prompt's answers lie side by side."""
        step, seed = self.progress.step, self.spec.seed
        found = []
        with self._timed("train"):
            for part, minibatch in enumerate(minibatches(experiences, self.settings, seed, step)):
                found.append(self.policy.update(trees(minibatch, LEARNT), loss, step, seed, part))
        return combined(found)

    def worst(self, quantity: str, count: int = 3) -> list[int]:
        """The numbers, in the newest step's file, of the rollouts in which a quantity is largest (for the entropy: smallest)."""
        amounts = [_amount(e, quantity) for e in self._kept]
        return sorted(range(len(amounts)), key=lambda i: -amounts[i])[:count]

    def keep(self, experiences: Sequence[Experience]) -> None:
        """Write the step's rollout file."""
        step, self._kept = self.progress.step + 1, experiences
        if parallel.rank() == 0:
            with self._timed("store"):
                rollouts.write(self.run, step, [e.record(number) for number, e in enumerate(experiences)])

    def measured(self) -> Metrics:
        """The seconds of each phase since it was asked last, the engine's profile, and what asking servers cost. All ranks call it."""
        times = {f"time_{name}_s": seconds for name, seconds in self._times.items()}
        done, self.engine.profile = self.engine.profile, Profile()
        profile = done.metrics()
        self._times.clear()
        if self._ahead:
            profile["sampler_s"], self._sampler_s = self._sampler_s, 0.0
        asked = traffic(self.roles.values()) if self.settings.served else {}
        return {**profile, **times, **asked}

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        with beats.doing(name):
            yield
        self._times[name] += time.perf_counter() - started


def minibatches(experiences: Sequence[Experience], cfg: Any, seed: int, step: int) -> Iterator[list[Experience]]:
    """Each pass a fresh order of the prompts, cut into minibatches of `global_batch_size` answers. A function of its arguments alone."""
    prompts = [list(same) for _, same in itertools.groupby(experiences, key=lambda e: e.place)]
    for epoch in range(cfg.update_epochs):
        order = np.random.default_rng((seed, step, epoch)).permutation(len(prompts))
        flat = [e for i in order for e in prompts[i]]
        for start in range(0, len(flat), cfg.global_batch_size):
            yield flat[start : start + cfg.global_batch_size]


def combined(parts: Sequence[Metrics]) -> Metrics:
    """The metrics of a step's updates as one: seconds added up, peaks the highest, others averaged."""
    found: Metrics = {}
    for name in parts[0]:
        values = [part[name] for part in parts if name in part]
        found[name] = (
            max(values)
            if name.startswith("peak_")
            else sum(values)
            if name.endswith("_time_s") or name.startswith("time_")
            else float(np.mean(values))
        )
    return found


def _amount(e: Experience, quantity: str) -> float:
    if quantity == "length":
        return float(len(e.tokens))
    if quantity == "entropy":
        return -float(e.entropy.mean())
    return float(e.kl.sum()) if quantity == "kl" else float(np.abs(e.logprobs - e.rollout_logprobs).mean())


def _engine(spec: Experiment, policy: Policy, directory: Path, tokenizer: PreTrainedTokenizerBase, group: ProcessGroup) -> Any:
    if spec.rollout.name != "megatron":
        engine: Any = import_module(f"workbench.rollout.{spec.rollout.name}").Engine
        return engine(directory, lambda: gathered(policy.weights(), policy.hf_config), tokenizer, spec.rollout.slots)
    from workbench.rollout.megatron import Engine

    if spec.model.expert_parallel > 1:
        raise ValueError("the embedded decoder has no expert parallelism: set model.expert_parallel=1")
    if spec.model.pipeline_parallel > 1 or spec.rollout.max_staleness:
        from workbench.engine.reshard import Whole

        whole = Whole(policy, group)
        return Engine(whole.model, tokenizer, spec.rollout.slots, whole.refill)
    return Engine(policy.chunks[0], tokenizer, spec.rollout.slots)
