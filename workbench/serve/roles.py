"""What the policy asks of others: values of a critic, rewards of programs and models. In the policy's own processes, or behind PyTriton."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.data.packing import Row
from workbench.experience import Experience, fill, trees
from workbench.rewards import resolve
from workbench.spec import AlgorithmConfig, Checkpoint, Critic, Experiment, Lora, Model, Reward
from workbench.store import RunDir

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.engine.step import Policy
    from workbench.runtime import Metrics

VALUE_ARRAYS = {"values": "values", "returns": "returns"}


class LocalCritic:
    """A critic in this gang: every rank makes the same calls."""

    def __init__(self, run: RunDir, spec: Experiment, total_steps: int):
        from workbench.engine import hf
        from workbench.engine.checkpoint import Checkpoints
        from workbench.engine.step import Policy

        self.cfg: Critic = spec.algorithm.critic  # type: ignore[attr-defined]
        self.seed = spec.seed
        self.folder = run.path / "critic" / "checkpoints"
        model = self.cfg.model or spec.model
        self.policy = Policy(model, self.cfg, hf.local_directory(model.source), total_steps)
        self._checkpoints = Checkpoints(self.policy, self.folder, Checkpoint(keep_last=spec.checkpoint.keep_last + 1, asynchronous=False))

    def values(self, rows: Sequence[Row]) -> list[Any]:
        return [scores_NK[:, 0] for scores_NK in self.policy.outputs(rows)]

    def train(self, rows: Sequence[Row], step: int) -> Metrics:
        """One pass over a step's rows in minibatches of `global_batch_size` prompts."""
        from workbench.algorithms.ppo import value_loss

        found: list[Metrics] = []
        for part, start in enumerate(range(0, len(rows), self.cfg.global_batch_size)):
            found.append(self.policy.update(rows[start : start + self.cfg.global_batch_size], value_loss, step, self.seed, part))
        return {name: sum(m[name] for m in found) / len(found) for name in found[0]}

    def save(self, step: int) -> None:
        self._checkpoints.save(step)
        self._checkpoints.finish()

    def restore(self, step: int) -> None:
        """Go back to the weights after `step` steps. Raises ValueError where there is no checkpoint of that step."""
        from workbench.engine import checkpoint

        if step == 0:
            return
        steps = checkpoint.complete_steps(self.folder)
        if step not in steps:
            raise ValueError(f"the policy goes on from step {step}, but the critic has checkpoints of {steps or 'no step'} in {self.folder}")
        checkpoint.load(self.policy, self.folder, step)


class CriticService:
    """The critic as an algorithm sees it, wherever it is."""

    def __init__(self, run: RunDir, spec: Experiment, total_steps: int):
        self._critic = LocalCritic(run, spec, total_steps)

    def infer(self, experiences: Sequence[Experience]) -> None:
        """Fill the value before each token."""
        fill(experiences, self._critic.values(trees(experiences, {})), "values")

    def train(self, experiences: Sequence[Experience], step: int) -> Callable[[], Metrics]:
        learnt = self._critic.train(trees(experiences, VALUE_ARRAYS), step)
        return lambda: learnt

    def save(self, step: int) -> None:
        self._critic.save(step)

    def restore(self, step: int) -> None:
        self._critic.restore(step)


class RewardService:
    """The weighted sum of an experiment's reward components."""

    def __init__(self, run: RunDir, spec: Experiment, rewards: Mapping[str, Reward]):
        from workbench.engine import hf

        self.rewards = rewards
        self._programs = {name: resolve.find(r.program) for name, r in rewards.items() if r.program is not None}
        self._models: dict[str, Policy] = {}
        for name, reward in rewards.items():
            if reward.model is not None:
                model = Model(source=reward.model, precision=spec.model.precision)
                self._models[name] = frozen(model, hf.local_directory(reward.model), spec.algorithm.micro_batch_tokens, num_scores=1)

    def run_programs(self, experiences: Sequence[Experience]) -> None:
        """Score this rank's answers by the programs."""
        for e in experiences:
            for name, function in self._programs.items():
                e.components[name] = resolve.score(function, name, e.prompt, e.response, e.row.columns)

    def run_models(self, experiences: Sequence[Experience]) -> None:
        """Score all answers by the reward models, on all ranks together, and add the components up."""
        for name, policy in self._models.items():
            rows = trees(experiences, {})
            scores = [score for scores_SK in policy.outputs(rows) for score in scores_SK[:, 0]]
            for e, score in zip(experiences, scores, strict=True):
                e.components[name] = float(score)
        for e in experiences:
            e.components = {name: e.components[name] for name in self.rewards}
            e.reward = sum(reward.weight * e.components[name] for name, reward in self.rewards.items())


class _Frozen(AlgorithmConfig):
    name: str = "frozen"
    scores: int = 0

    @property
    def num_scores(self) -> int:
        return self.scores


def frozen(model: Model, directory: Path, micro_batch_tokens: int, num_scores: int = 0) -> Policy:
    """A model that only reads. Adapters that nothing trains keep it without gradients and optimizer state, and change nothing."""
    from workbench.engine.step import Policy

    settings = model.model_copy(update={"lora": Lora(rank=1, targets=("qkv",)), "distributed_optimizer": False})
    return Policy(settings, _Frozen(micro_batch_tokens=micro_batch_tokens, scores=num_scores), directory, total_steps=1)
