"""What each server answers: a critic's, a reward's and a reference's endpoints over their models. Every rank of the server makes the same calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from workbench.layout import Layout
from workbench.serve import messages
from workbench.serve.endpoint import BadRequest, Field
from workbench.serve.journal import Journal
from workbench.serve.roles import VALUE_ARRAYS, LocalCritic, LocalReward, frozen, laid_out
from workbench.spec import Experiment
from workbench.store import RunDir

if TYPE_CHECKING:
    from workbench.engine.step import Policy

Arrays = dict[str, np.ndarray]
Described = tuple[tuple[Field, ...], tuple[Field, ...], Callable[[Arrays], Arrays]]
"""Inputs, outputs, and the function of an endpoint."""
_TOKENS = (Field("tokens", np.int32, 2), Field("sequence_lengths", np.int32, 1), Field("prompt_lengths", np.int32, 1))
_STEP = Field("step", np.int64, 1)


class Part(Protocol):
    """What a server has one of, or two. `constant` where its models' weights stay as they are."""

    constant: bool

    def endpoints(self) -> dict[str, Described]: ...

    def models(self) -> Sequence[Policy]: ...


class CriticRole:
    """`critic_infer`, `critic_train`, `critic_save`, `critic_restore` over one critic and its journal."""

    constant = False

    def __init__(self, run: RunDir, spec: Experiment, layout: Layout):
        from workbench.engine import checkpoint, parallel

        self._make = lambda: LocalCritic(run, spec)
        self._first = parallel.rank() == 0
        self.critic = self._make()
        self.journal = Journal(run.path / "critic" / "journal")
        steps = parallel.from_first(checkpoint.complete_steps(self.critic.folder))
        self.applied = steps[-1] if steps else 0
        self.critic.restore(self.applied)
        for step in parallel.from_first(self.journal.steps()):
            if step > self.applied:
                self._learn(step, parallel.from_first(self.journal.read(step) if self._first else {}))

    def endpoints(self) -> dict[str, Described]:
        arrays = (Field("returns", np.float32, 2), Field("values", np.float32, 2))
        learnt = (Field("loss", np.float32, 1), Field("grad_norm", np.float32, 1))
        return {
            "critic_infer": (_TOKENS, (Field("values", np.float32, 2),), self.infer),
            "critic_train": ((_STEP, *_TOKENS, *arrays), learnt, self.train),
            "critic_save": ((_STEP,), (_STEP,), self.save),
            "critic_restore": ((_STEP,), (_STEP,), self.restore),
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
        learnt = self.critic.learn(messages.rows(arrays, VALUE_ARRAYS), step - 1)
        self.applied = step
        answer = {"loss": float(learnt["loss"]), "grad_norm": float(learnt["grad_norm"])}
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
        """Stand where the policy does: a policy that was restarted goes on from its checkpoint, and the critic from the one beside it."""
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


class RewardRole:
    """`reward_model`: the components of each answer's reward, [B, K] in the settings' order."""

    constant = True

    def __init__(self, run: RunDir, spec: Experiment, layout: Layout):
        self.reward = LocalReward(spec, layout)

    def endpoints(self) -> dict[str, Described]:
        return {"reward_model": ((*_TOKENS, Field("columns", bytes, 1)), (Field("rewards", np.float32, 2),), self.score)}

    def models(self) -> Sequence[Policy]:
        return list(self.reward.models.values())

    def score(self, arrays: Arrays) -> Arrays:
        try:
            columns = [json.loads(text) for text in arrays["columns"]]
        except ValueError as error:
            raise BadRequest(f"columns: one JSON object a row; {error}") from None
        if wrong := next((text for text, column in zip(arrays["columns"], columns, strict=True) if not isinstance(column, dict)), None):
            raise BadRequest(f"columns: one JSON object a row; got {wrong[:100]!r}")
        return {"rewards": self.reward.score(messages.rows(arrays), columns)}


class ReferenceRole:
    """`reference_logprobs`: the log-probability of each answered token under the policy's first weights."""

    constant = True

    def __init__(self, run: RunDir, spec: Experiment, layout: Layout):
        from workbench.engine import hf

        self.policy = frozen(laid_out(spec.model, layout), hf.local_directory(spec.model.source), spec.algorithm.micro_batch_tokens)

    def endpoints(self) -> dict[str, Described]:
        return {"reference_logprobs": (_TOKENS, (Field("logprobs", np.float32, 2),), self.logprobs)}

    def models(self) -> Sequence[Policy]:
        return [self.policy]

    def logprobs(self, arrays: Arrays) -> Arrays:
        return {"logprobs": messages.by_token(arrays, self.policy.outputs(messages.rows(arrays), entropy=False))}


PARTS: dict[str, type[CriticRole] | type[RewardRole] | type[ReferenceRole]] = {
    "critic": CriticRole,
    "reward": RewardRole,
    "reference": ReferenceRole,
}
"""What answers, by its name; a server's role names one, or two that share its processes (critic_reward)."""


def _learnt(values: dict[str, float]) -> Arrays:
    return {name: np.array([value], np.float32) for name, value in values.items()}
