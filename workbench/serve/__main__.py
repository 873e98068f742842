"""A server's rank: `python -m workbench.serve RUN_DIR ROLE`. Rank 0 answers the requests; the others of its layout compute with it."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workbench import start
from workbench.layout import Layout
from workbench.serve import messages
from workbench.serve.endpoint import BadRequest, Endpoint, Field, check_tokens
from workbench.serve.journal import Journal
from workbench.serve.roles import VALUE_ARRAYS, LocalCritic, LocalReward
from workbench.spec import Experiment
from workbench.store import RunDir

Arrays = dict[str, np.ndarray]
IDLE_S = 60.0
"""The other ranks hear from rank 0 at least this often, so that their wait does not time out."""
_TOKENS = (Field("tokens", np.int32, 2), Field("sequence_lengths", np.int32, 1), Field("prompt_lengths", np.int32, 1))
_STEP = Field("step", np.int64, 1)


class CriticRole:
    """`critic_infer`, `critic_train`, `critic_save`, `critic_restore` over one critic and its journal."""

    def __init__(self, run: RunDir, spec: Experiment):
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

    def endpoints(self) -> dict[str, tuple[tuple[Field, ...], tuple[Field, ...], Callable[[Arrays], Arrays]]]:
        arrays = (Field("returns", np.float32, 2), Field("values", np.float32, 2))
        learnt = (Field("loss", np.float32, 1), Field("grad_norm", np.float32, 1))
        return {
            "critic_infer": (_TOKENS, (Field("values", np.float32, 2),), self.infer),
            "critic_train": ((_STEP, *_TOKENS, *arrays), learnt, self.train),
            "critic_save": ((_STEP,), (_STEP,), self.save),
            "critic_restore": ((_STEP,), (_STEP,), self.restore),
        }

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

    def __init__(self, run: RunDir, spec: Experiment):
        self.reward = LocalReward(spec)

    def endpoints(self) -> dict[str, tuple[tuple[Field, ...], tuple[Field, ...], Callable[[Arrays], Arrays]]]:
        return {"reward_model": ((*_TOKENS, Field("columns", bytes, 1)), (Field("rewards", np.float32, 2),), self.score)}

    def score(self, arrays: Arrays) -> Arrays:
        try:
            columns = [json.loads(text) for text in arrays["columns"]]
        except ValueError as error:
            raise BadRequest(f"columns: one JSON object a row; {error}") from None
        return {"rewards": self.reward.score(messages.rows(arrays), columns)}


ROLES = {"critic": (CriticRole,), "reward": (RewardRole,), "critic_reward": (CriticRole, RewardRole)}
"""Which endpoints a server's processes have; the combined one keeps both models in one place."""


def serve(run: RunDir, spec: Experiment, role: str) -> None:
    """Answer until SIGTERM."""
    from workbench.engine import hf, parallel

    handlers: dict[str, Callable[[Arrays], Arrays]] = {}
    described: dict[str, tuple[tuple[Field, ...], tuple[Field, ...]]] = {}
    for made in (make(run, spec) for make in ROLES[role]):
        for name, (inputs, outputs, call) in made.endpoints().items():
            handlers[name], described[name] = call, (inputs, outputs)
    if parallel.rank() > 0:
        nothing: Any = None
        while (asked := parallel.from_first(nothing)) != "end":
            if asked is not None:
                name, arrays = asked
                _answer(handlers[name], arrays)
        return
    vocabulary = hf.config(hf.local_directory(spec.model.source)).vocab_size
    last = [time.monotonic()]

    def endpoint(name: str) -> Endpoint:
        def call(arrays: Arrays) -> Arrays:
            _check(arrays, vocabulary, spec.data.max_length + spec.algorithm.max_tokens)  # type: ignore[attr-defined]
            last[0] = time.monotonic()
            parallel.from_first((name, arrays))
            return handlers[name](arrays)

        return Endpoint(name, *described[name], call)

    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))

    def stop() -> bool:
        if time.monotonic() - last[0] > IDLE_S:
            last[0] = time.monotonic()
            parallel.from_first(None)
        return bool(ended)

    from workbench.serve.server import Server

    Server(run.path, role, [endpoint(name) for name in handlers]).run(stop)
    parallel.from_first("end")


def _check(arrays: Arrays, vocabulary: int, longest: int) -> None:
    if "tokens" not in arrays:
        return
    check_tokens(arrays["tokens"], arrays["sequence_lengths"], vocabulary, longest)
    if not ((arrays["prompt_lengths"] >= 1) & (arrays["prompt_lengths"] < arrays["sequence_lengths"])).all():
        raise BadRequest("prompt_lengths: from 1 to below sequence_lengths")
    for name in ("returns", "values"):
        if name in arrays and (arrays[name].shape != arrays["tokens"].shape or not np.isfinite(arrays[name]).all()):
            raise BadRequest(f"{name}: finite numbers in the shape of tokens, {arrays['tokens'].shape}")


def _answer(handler: Callable[[Arrays], Arrays], arrays: Arrays) -> None:
    """On the ranks behind rank 0, where a refused request is nobody's concern."""
    try:
        handler(arrays)
    except BadRequest:
        return


def _learnt(values: dict[str, float]) -> Arrays:
    return {name: np.array([value], np.float32) for name, value in values.items()}


def main() -> int:
    run, role = RunDir(Path(sys.argv[1])), sys.argv[2]
    spec = Experiment.from_yaml(run.spec_path.read_text())
    from workbench.engine import parallel

    critic = getattr(spec.algorithm, "critic", None)
    model = (critic.model if critic and critic.model else spec.model) if "critic" in role else None
    serve(run, start.join(run, spec, model.layout if model else Layout()), role)
    parallel.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
