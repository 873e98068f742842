"""What an algorithm does with its own rollouts: the sampler, the roles and the learner of a rank, in the order of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, cast

from workbench import metrics as M
from workbench.data.packing import Row
from workbench.engine import parallel
from workbench.engine.batch import Loss, Metrics
from workbench.engine.step import Policy
from workbench.models.connections import connect_roles, traffic
from workbench.models.protocol import Learning, Role, Scoring, Surroundings
from workbench.processes.learning import learn, worst
from workbench.processes.phases import PhaseTimes
from workbench.processes.rank import Rank
from workbench.processes.sampling import MICROBATCH, Sampler, SamplerTime, in_order, sampling_of
from workbench.processes.scoring import Scorer
from workbench.rollout.ahead import Ahead, Over
from workbench.rollout.base import Sampling
from workbench.rollout.experience import Experience, fill, group_into_rows
from workbench.rundir import rollouts
from workbench.serve.client import Client
from workbench.settings.online import SamplingConfig
from workbench.settings.outputs import Outputs


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

    def stop_requested(self) -> bool:
        """Whether the run is to stop, the same on every rank: all ask together. It waits while the run is to pause."""
        ...


class Online:
    """`workbench.algorithms.OnlineRuntime`. Every rank of the policy has one; all make the same calls, and hold all experiences of a step.

    `roles` are those that are asked: without a policy that learns the reward alone.
    """

    def __init__(self, progress: Progress, rank: Rank, policy: Policy, roles: Iterable[str]):
        self.progress, self._rank, self._policy, self._seed = progress, rank, policy, rank.spec.seed
        self._times, self._ahead_s = PhaseTimes(), SamplerTime()
        self.sampler = Sampler(rank.spec, policy, rank.directory, rank.tokenizer, self._times)
        around = Surroundings(rank.run, rank.spec, rank.spec.model.layout, rank.directory, policy)
        self._names = tuple(roles)
        self.roles = connect_roles(self._names, around, lambda server: Client(rank.run.path, server))
        self._scorer = Scorer(cast(Scoring, self.roles["reward"]), self._cfg.shaping, self._waits, progress.stop_requested)
        self._kept: Sequence[Experience] = ()
        staleness = rank.spec.rollout.max_staleness
        self._ahead = None
        if staleness:
            self._ahead = Ahead(staleness, progress.total_steps, self.sampler.refit, self._sampling, self._sample_ahead)

    @property
    def _cfg(self) -> SamplingConfig:
        """The algorithm's settings as they are now: with what was changed during the run."""
        return cast(SamplingConfig, self._policy.algorithm)

    def _sampling(self) -> Sampling:
        return sampling_of(self._cfg, self._rank.end_tokens)

    @property
    def critic(self) -> Learning | None:
        return cast(Learning, self.roles["critic"]) if "critic" in self.roles else None

    # --- a step, in its order

    def rollout(self, rows: Sequence[Row]) -> list[Experience]:
        step, samples = self.progress.step, self._cfg.samples_per_prompt
        with self._times.timed("generate"):
            if self._ahead:
                if list(map(id, rows)) != list(map(id, self.progress.batch(step))):
                    raise ValueError("rollout.max_staleness is for algorithms that sample each step's own rows, once")
                experiences = self._ahead.take(step)
                self._ask(experiences)
            else:
                self.sampler.refit(step)
                experiences = self.sampler.answers(rows, samples, step + 1, self._seed, self._sampling(), self._score_and_ask)
        return self._scored(experiences, len(rows), samples)

    def measure(self, experiences: Sequence[Experience]) -> None:
        rows = group_into_rows(experiences, {})
        with self._times.timed("logprobs"):
            both = self._policy.outputs(rows, Outputs(logprobs=True, entropy=True))
            fill(experiences, [given.of("logprobs_N") for given in both], "logprobs")
            fill(experiences, [given.of("entropy_N") for given in both], "entropy")
        if "reference" in self.roles:
            with self._times.timed("init_logprobs"):
                cast(Role, self.roles["reference"]).fill(experiences)

    def values(self, experiences: Sequence[Experience]) -> None:
        self.ask("critic", experiences)

    def ask(self, role: str, experiences: Sequence[Experience]) -> None:
        with self._times.timed(f"{role}_infer"):
            cast(Role, self.roles[role]).fill(experiences)

    def train_critic(self, experiences: Sequence[Experience]) -> Callable[[], Metrics]:
        with self._times.timed("critic_train"):
            done = self._critic.train(experiences, self.progress.step + 1)

        def wait() -> Metrics:
            with self._times.timed("critic_wait"):
                return done()

        return wait

    @property
    def _critic(self) -> Learning:
        assert self.critic is not None, "this algorithm has no critic among its ROLES"
        return self.critic

    def learn(self, experiences: Sequence[Experience], loss: Loss) -> Metrics:
        with self._times.timed("train"):
            return learn(self._policy, experiences, loss, self._cfg.update_epochs, self.progress.step, self._seed)

    def keep(self, experiences: Sequence[Experience]) -> None:
        step, self._kept = self.progress.step + 1, experiences
        if parallel.rank() == 0:
            with self._times.timed("store"):
                rollouts.write(self._rank.run, step, [e.record(number) for number, e in enumerate(experiences)])

    # --- what the worker asks

    def held_out(self, rows: Sequence[Row], seed: int) -> list[Experience]:
        """One scored answer to each row's prompt, by the weights as they are now."""
        if self._ahead:
            self._ahead.wait()
        with self._times.aside(), self.sampler.aside(), self._ahead_s.aside():
            self.sampler.refit(self.progress.step)
            experiences = self._scored(self.sampler.answers(rows, 1, 0, seed, self._sampling(), self._scorer.begin), len(rows), 1)
            self._traffic()
            self._scorer.metrics()
        return experiences

    def worst(self, quantity: str) -> list[int]:
        """The numbers, in the newest step's file, of the rollouts that stand out in a quantity."""
        return worst(self._kept, quantity)

    def measured(self) -> Metrics:
        """The seconds of each phase since it was asked last, the engine's profile, and what asking servers cost. All ranks call it."""
        ahead = {M.SAMPLER_S: self._ahead_s.take()} if self._ahead else {}
        return {**self.sampler.profile(), **self._times.take(), **ahead, **self._traffic(), **self._scorer.metrics()}

    def close(self) -> None:
        """The end of the run: nothing is sampled any more."""
        if self._ahead:
            self._ahead.close()

    # --- asking others

    def _score_and_ask(self, experiences: Sequence[Experience]) -> None:
        self._scorer.begin(experiences)
        self._ask(experiences)

    def _ask(self, experiences: Sequence[Experience]) -> None:
        """Ask the roles what only answers that will be learnt from need."""
        for start in range(0, len(experiences), MICROBATCH):
            for role in self._of_learnt:
                role.begin(experiences[start : start + MICROBATCH])

    @property
    def _of_learnt(self) -> list[Role]:
        """The algorithm's roles that are asked about answers that will be learnt from."""
        return [cast(Role, self.roles[name]) for name in self._names if name != "reward"]

    def _waits(self, reason: str) -> None:
        self._rank.emit("phase", message=reason)

    def _scored(self, experiences: Sequence[Experience], prompts: int, samples: int) -> list[Experience]:
        """All ranks' answers, prompt by prompt, with their rewards. Raises as `in_order` does."""
        with self._times.timed("reward"):
            gathered = in_order(parallel.gather_over_all(experiences), prompts, samples)
            self._scorer.fill(gathered)
        return gathered

    def _sample_ahead(self, step: int, sampling: Sampling, over: Over) -> list[Experience]:
        """Called by the sampler's thread: no collective operation of the other thread's groups, and nothing that it times."""
        with self._ahead_s.running():
            samples = self._cfg.samples_per_prompt
            return self.sampler.answers(self.progress.batch(step), samples, step + 1, self._seed, sampling, self._scorer.begin, over)

    def _traffic(self) -> Metrics:
        return traffic(self.roles.values()) if self._cfg.served else {}
