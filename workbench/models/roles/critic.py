"""The critic of PPO: the value before each token of an answer, learnt beside the policy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench import functional as F
from workbench import metrics as M
from workbench.data.packing import Row
from workbench.models import messages
from workbench.models.asking import ByToken
from workbench.models.endpoint import STEP, TOKENS, Arrays, BadRequest, Field
from workbench.models.journal import Journal
from workbench.models.protocol import Answers, Learning, Served, Surroundings, Transport
from workbench.rollout.experience import Experience, fill, group_into_rows
from workbench.rundir.store import COMPLETE
from workbench.settings import AlgorithmConfig, Checkpoint, Model
from workbench.settings.online import ActorCriticConfig, Critic, require
from workbench.settings.outputs import Outputs
from workbench.settings.placement import Place

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.engine.batch import Batch, Metrics
    from workbench.engine.step import Policy

OUTPUTS = Outputs(scores=1, per="token")
LESSON = {"values": "values", "returns": "returns"}
"""The arrays that a lesson carries, and which of an experience's they are."""
REPORTED = (M.LOSS, M.GRAD_NORM)
"""What the server answers of a lesson."""


def placement(algorithm: AlgorithmConfig, model: Model) -> Place:
    cfg = require(algorithm, ActorCriticConfig).critic
    critic = cfg.model or model
    return Place(cfg.processes, critic.layout, (critic.source,), "algorithm.critic.processes")


def value_loss(batch: Batch, cfg: Critic) -> tuple[Tensor, Metrics]:
    """0.5 max((clip(v) - R)^2, (v - R)^2), one value a token."""
    values_N, returns_N = batch.scores_SK[:, 0], batch.arrays["returns"]
    loss_N = F.policy_gradient.clipped_value(values_N, batch.arrays["values"], returns_N, cfg.value_clip)
    return loss_N, {M.LOSS: loss_N, M.VALUES_MEAN: values_N.detach(), M.SQUARED_ERROR: (values_N.detach() - returns_N).square()}


class CriticModel:
    """A critic's model in this gang: every rank makes the same calls."""

    def __init__(self, around: Surroundings):
        from workbench.engine.checkpoint import Checkpoints
        from workbench.engine.step import Policy

        spec = around.spec
        self.cfg = require(spec.algorithm, ActorCriticConfig).critic
        self.seed = spec.seed
        self.folder = around.run.path / "critic" / "checkpoints"
        model = self.cfg.model or spec.model
        self.policy = Policy(model, self.cfg, self._directory(around, model), 1, OUTPUTS)
        self._checkpoints = Checkpoints(self.policy, self.folder, Checkpoint(keep_last=spec.checkpoint.keep_last + 1, asynchronous=False))

    def _directory(self, around: Surroundings, model: Model) -> Path:
        """Of its first weights. Raises ValueError for a model that has no rows for some of the policy's tokens."""
        from workbench.engine import hf

        if self.cfg.model is None:
            return around.directory
        directory = hf.local_directory(model.source, model.revision)
        rows, tokens = hf.config(directory).vocab_size, hf.config(around.directory).vocab_size
        if rows < tokens:
            raise ValueError(
                f"algorithm.critic.model.source={model.source} has {rows} tokens and the policy {tokens}: a critic reads the policy's tokens"
            )
        return directory

    def values(self, rows: Sequence[Row]) -> list[Any]:
        return [given.of("scores_SK")[:, 0] for given in self.policy.outputs(rows)]

    def learn(self, rows: Sequence[Row], step: int) -> Metrics:
        """One pass over the rows in minibatches of `global_batch_size` prompts."""
        metrics: list[Metrics] = []
        for part, start in enumerate(range(0, len(rows), self.cfg.global_batch_size)):
            metrics.append(self.policy.update(rows[start : start + self.cfg.global_batch_size], value_loss, step, self.seed, part))
        return {name: sum(m[name] for m in metrics) / len(metrics) for name in metrics[0]}

    def save(self, step: int) -> None:
        """Raises ValueError for weights that are not finite: there would be no critic to continue with."""
        from workbench.engine import checkpoint

        if not checkpoint.is_finite(self.policy):
            raise ValueError(
                f"the critic's weights are NaN or infinite at step {step}: no checkpoint is made; resume from an earlier one with a lower lr"
            )
        self._checkpoints.save(step)
        self._checkpoints.finish()

    def restore(self, step: int) -> None:
        from workbench.engine import checkpoint, parallel

        steps = parallel.from_first(checkpoint.complete_steps(self.folder))
        if step:
            if step not in steps:
                raise ValueError(f"the policy continues from step {step}, but the critic has checkpoints of {steps or 'no step'} in {self.folder}")
            checkpoint.load(self.policy, self.folder, step)
        if parallel.rank() == 0:
            forget_after(self.folder, step)


def forget_after(folder: Path, step: int) -> None:
    """Drop the checkpoints of later steps, which are done anew: a server that starts again continues from its newest, and the newest ones are kept."""
    from workbench.engine import checkpoint

    for later in checkpoint.complete_steps(folder):
        if later > step:
            (folder / str(later) / COMPLETE).unlink()
            shutil.rmtree(folder / str(later))


class LocalCritic:
    """The critic in the policy's own processes."""

    transport: Transport | None = None

    def __init__(self, critic: CriticModel):
        self._critic = critic
        self.save, self.restore = critic.save, critic.restore

    def begin(self, experiences: Sequence[Experience]) -> None: ...

    def fill(self, experiences: Sequence[Experience]) -> None:
        fill(experiences, self._critic.values(group_into_rows(experiences, {})), "values")

    def train(self, experiences: Sequence[Experience], step: int) -> Callable[[], Metrics]:
        learnt = self._critic.learn(group_into_rows(experiences, LESSON), step - 1)
        return lambda: learnt


class RemoteCritic(ByToken):
    """The critic behind a server. Lessons are sent by the first rank, and carry their step: they can be sent again."""

    def __init__(self, transport: Transport):
        super().__init__(transport, "critic_infer", "values", "values")

    def train(self, experiences: Sequence[Experience], step: int) -> Callable[[], Metrics]:
        from workbench.engine import parallel

        future = None
        if parallel.rank() == 0:
            arrays = messages.request(experiences, LESSON)
            future = self._call("critic_train", step=np.array([step], np.int64), **arrays)

        def wait() -> Metrics:
            answer = {name: float(value[0]) for name, value in future.result().items()} if future else {}
            return parallel.from_first(answer)

        return wait

    def save(self, step: int) -> None:
        self._on_first("critic_save", step)

    def restore(self, step: int) -> None:
        self._on_first("critic_restore", step)

    def _on_first(self, endpoint: str, step: int) -> None:
        """The first rank asks; a refusal is raised on every rank alike."""
        from workbench.engine import parallel

        refused = None
        if parallel.rank() == 0:
            try:
                self._call(endpoint, step=np.array([step], np.int64)).result()
            except ValueError as error:
                refused = str(error)
        refused = parallel.from_first(refused)
        if refused:
            raise ValueError(refused)


class Server:
    """`critic_infer`, `critic_train`, `critic_save`, `critic_restore` over one critic and its journal."""

    constant = False

    def __init__(self, around: Surroundings):
        from workbench.engine import checkpoint, parallel

        self._make = lambda: CriticModel(around)
        self._first = parallel.rank() == 0
        self.critic = self._make()
        self.journal = Journal(around.run.path / "critic" / "journal")
        steps = parallel.from_first(checkpoint.complete_steps(self.critic.folder))
        self.applied = steps[-1] if steps else 0
        self.critic.restore(self.applied)
        for step in parallel.from_first(self.journal.steps()):
            if step > self.applied:
                self._learn(step, parallel.from_first(self.journal.read(step) if self._first else {}))

    def endpoints(self) -> Mapping[str, Answers]:
        arrays = (Field("returns", np.float32, 2), Field("values", np.float32, 2))
        learnt = tuple(Field(name, np.float32, 1) for name in REPORTED)
        return {
            "critic_infer": Answers(TOKENS, (Field("values", np.float32, 2),), self.infer),
            "critic_train": Answers((STEP, *TOKENS, *arrays), learnt, self.train),
            "critic_save": Answers((STEP,), (STEP,), self.save),
            "critic_restore": Answers((STEP,), (STEP,), self.restore),
        }

    def models(self) -> Sequence[Policy]:
        return [self.critic.policy]

    def infer(self, arrays: Arrays) -> Arrays:
        return {"values": messages.by_token(arrays, self.critic.values(messages.rows(arrays)))}

    def train(self, arrays: Arrays) -> Arrays:
        """Learn the step once: a request that was answered before gets the same answer again."""
        from workbench.engine import parallel

        step = int(arrays["step"][0])
        if step > self.applied + 1:
            raise BadRequest(f"step {step} comes before step {self.applied + 1} was learnt")
        if step <= self.applied:
            known = parallel.from_first(self.journal.answered(step) if self._first else None)
            if known is None:
                raise BadRequest(f"step {step} was learnt before; the critic is at step {self.applied}")
            return _learnt(known)
        if self._first:
            self.journal.write(step, arrays)
        return _learnt(self._learn(step, arrays))

    def _learn(self, step: int, arrays: Arrays) -> dict[str, float]:
        learnt = self.critic.learn(messages.rows(arrays, LESSON), step - 1)
        self.applied = step
        answer: dict[str, float] = {name: float(learnt[name]) for name in REPORTED}
        if self._first:
            self.journal.answer(step, answer)
        return answer

    def save(self, arrays: Arrays) -> Arrays:
        step = int(arrays["step"][0])
        if step != self.applied:
            raise BadRequest(f"asked to save step {step}, the critic is at step {self.applied}")
        self.critic.save(step)
        if self._first:
            self.journal.forget(range(step, step + 1))
        return {"step": arrays["step"]}

    def restore(self, arrays: Arrays) -> Arrays:
        """Stand where the policy does: a policy that was restarted continues from its checkpoint, and the critic from the one beside it."""
        step = int(arrays["step"][0])
        if step != self.applied:
            try:
                if step == 0:
                    self.critic = self._make()
                self.critic.restore(step)
            except ValueError as error:
                raise BadRequest(str(error)) from None
            self.applied = step
            if self._first:
                self.journal.forget(range(step + 1))
        return {"step": arrays["step"]}


def _learnt(values: dict[str, float]) -> Arrays:
    return {name: np.array([value], np.float32) for name, value in values.items()}


def local(around: Surroundings) -> Learning:
    return LocalCritic(CriticModel(around))


def remote(around: Surroundings, transport: Transport) -> Learning:
    return RemoteCritic(transport)


def serve(around: Surroundings) -> Served:
    return Server(around)
