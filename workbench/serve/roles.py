"""What the policy asks of others: values of a critic, rewards of programs and models. In the policy's own processes, or behind PyTriton."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from workbench.data.packing import Row
from workbench.experience import Experience, fill, trees
from workbench.layout import Layout
from workbench.rewards import resolve
from workbench.settings import AlgorithmConfig, Checkpoint, Critic, Lora, Model
from workbench.spec import Experiment
from workbench.store import COMPLETE, RunDir

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.engine.step import Policy
    from workbench.runtime import Metrics

VALUE_ARRAYS = {"values": "values", "returns": "returns"}


class CriticClient(Protocol):
    """The critic as the policy's ranks see it. All make the same calls, except `begin`."""

    def begin(self, experiences: Sequence[Experience]) -> None:
        """Some of this rank's rollouts are finished: ask for their values already, where asking and computing are apart."""
        ...

    def infer(self, experiences: Sequence[Experience]) -> None:
        """Fill the value before each token of all experiences."""
        ...

    def train(self, experiences: Sequence[Experience], step: int) -> Callable[[], Metrics]:
        """Begin the lesson of step `step` (from 1); what is returned waits for its metrics."""
        ...

    def save(self, step: int) -> None: ...

    def restore(self, step: int) -> None:
        """Go to the weights after `step` steps. Raises ValueError where there is no checkpoint of that step."""
        ...


class LocalCritic:
    """A critic's model in this gang: every rank makes the same calls."""

    def __init__(self, run: RunDir, spec: Experiment):
        from workbench.engine import hf
        from workbench.engine.checkpoint import Checkpoints
        from workbench.engine.step import Policy

        self.cfg: Critic = spec.algorithm.critic  # type: ignore[attr-defined]
        self.seed = spec.seed
        self.folder = run.path / "critic" / "checkpoints"
        model = self.cfg.model or spec.model
        self.policy = Policy(model, self.cfg, hf.local_directory(model.source), total_steps=1)
        self._checkpoints = Checkpoints(self.policy, self.folder, Checkpoint(keep_last=spec.checkpoint.keep_last + 1, asynchronous=False))

    def values(self, rows: Sequence[Row]) -> list[Any]:
        return [scores_NK[:, 0] for scores_NK in self.policy.outputs(rows)]

    def learn(self, rows: Sequence[Row], step: int) -> Metrics:
        """One pass over the rows in minibatches of `global_batch_size` prompts."""
        from workbench.algorithms.ppo import value_loss

        found: list[Metrics] = []
        for part, start in enumerate(range(0, len(rows), self.cfg.global_batch_size)):
            found.append(self.policy.update(rows[start : start + self.cfg.global_batch_size], value_loss, step, self.seed, part))
        return {name: sum(m[name] for m in found) / len(found) for name in found[0]}

    def save(self, step: int) -> None:
        self._checkpoints.save(step)
        self._checkpoints.finish()

    def restore(self, step: int) -> None:
        from workbench.engine import checkpoint, parallel

        steps = parallel.from_first(checkpoint.complete_steps(self.folder))
        if step:
            if step not in steps:
                raise ValueError(f"the policy goes on from step {step}, but the critic has checkpoints of {steps or 'no step'} in {self.folder}")
            checkpoint.load(self.policy, self.folder, step)
        if parallel.rank() == 0:
            forget_after(self.folder, step)


def forget_after(folder: Path, step: int) -> None:
    """Drop the checkpoints of later steps, which are done anew: a server that starts again goes on from its newest, and the newest ones are kept."""
    from workbench.engine import checkpoint

    for later in checkpoint.complete_steps(folder):
        if later > step:
            (folder / str(later) / COMPLETE).unlink()
            shutil.rmtree(folder / str(later))


class Colocated:
    """CriticClient of a critic in the policy's own processes."""

    def __init__(self, critic: LocalCritic):
        self._critic = critic
        self.save, self.restore = critic.save, critic.restore

    def begin(self, experiences: Sequence[Experience]) -> None: ...

    def infer(self, experiences: Sequence[Experience]) -> None:
        fill(experiences, self._critic.values(trees(experiences, {})), "values")

    def train(self, experiences: Sequence[Experience], step: int) -> Callable[[], Metrics]:
        learnt = self._critic.learn(trees(experiences, VALUE_ARRAYS), step - 1)
        return lambda: learnt


class _Asked:
    """Requests under way, with the experiences that each is about, by their step. One thread may add while another collects."""

    def __init__(self) -> None:
        self._pending: defaultdict[int, list[tuple[Sequence[Experience], Future]]] = defaultdict(list)

    def add(self, experiences: Sequence[Experience], answer: Future) -> None:
        self._pending[experiences[0].step].append((list(experiences), answer))

    def collect(self, step: int, take: Callable[[Experience, dict[str, np.ndarray], int], Any]) -> dict[tuple[int, int], Any]:
        """Wait for all ranks' answers about a step: what `take` makes of each experience, by its place and sample, on every rank."""
        from workbench.engine import parallel

        asked_of_step = self._pending.pop(step, [])
        mine = {(e.place, e.sample): take(e, future.result(), i) for asked, future in asked_of_step for i, e in enumerate(asked)}
        return {key: value for part in parallel.gather_over_all(mine) for key, value in part.items()}


class ByToken:
    """What an endpoint gives for each token of finished rollouts: asked as they finish, collected when all are."""

    def __init__(self, run: RunDir, role: str, endpoint: str, output: str):
        from workbench.serve.client import Client

        self.client, self._endpoint, self._output = Client(run.path, role), endpoint, output
        self._asked = _Asked()

    def begin(self, experiences: Sequence[Experience]) -> None:
        from workbench.serve import messages

        if experiences:
            self._asked.add(experiences, self.client.call(self._endpoint, **messages.request(experiences)))

    def fill(self, experiences: Sequence[Experience], name: str) -> None:
        """Give all experiences, on every rank, their array."""

        def own(e: Experience, answer: dict[str, np.ndarray], i: int) -> np.ndarray:
            start = len(e.row.prefix)
            return np.array(answer[self._output][i, start : start + len(e.tokens)])

        found = self._asked.collect(experiences[0].step, own)
        for e in experiences:
            setattr(e, name, found[e.place, e.sample])


class ServedCritic:
    """CriticClient of the critic behind PyTriton. Lessons are sent by the first rank, and carry their step: they can be sent again."""

    def __init__(self, run: RunDir, role: str):
        self._asked = ByToken(run, role, "critic_infer", "values")
        self.client, self.begin = self._asked.client, self._asked.begin

    def infer(self, experiences: Sequence[Experience]) -> None:
        self._asked.fill(experiences, "values")

    def train(self, experiences: Sequence[Experience], step: int) -> Callable[[], Metrics]:
        from workbench.engine import parallel
        from workbench.serve import messages

        future = None
        if parallel.rank() == 0:
            arrays = messages.request(experiences, VALUE_ARRAYS)
            future = self.client.call("critic_train", step=np.array([step], np.int64), **arrays)

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
                self.client.call(endpoint, step=np.array([step], np.int64)).result()
            except ValueError as error:
                refused = str(error)
        refused = parallel.from_first(refused)
        if refused:
            raise ValueError(refused)


class LocalReward:
    """The components of a reward in this gang: programs, and models that every rank computes together."""

    def __init__(self, spec: Experiment, layout: Layout):
        from workbench.engine import hf

        self.rewards = spec.algorithm.rewards  # type: ignore[attr-defined]
        self._tokenizer = hf.tokenizer(hf.local_directory(spec.model.source))
        self._programs = {name: resolve.find(r.program) for name, r in self.rewards.items() if r.program is not None}
        self.models: dict[str, Policy] = {}
        for name, reward in self.rewards.items():
            if reward.model is not None:
                model = laid_out(Model(source=reward.model, precision=spec.model.precision), layout)
                self.models[name] = frozen(model, hf.local_directory(reward.model), spec.algorithm.micro_batch_tokens, num_scores=1)

    def program_scores(self, prompt: str, response: str, columns: Mapping[str, str]) -> dict[str, float]:
        return {name: resolve.score(function, name, prompt, response, columns) for name, function in self._programs.items()}

    def model_scores(self, rows: Sequence[Row]) -> dict[str, list[float]]:
        """By component, a score for each answer of the rows."""
        return {name: [float(s) for scores_SK in policy.outputs(rows) for s in scores_SK[:, 0]] for name, policy in self.models.items()}

    def score(self, rows: Sequence[Row], columns: Sequence[Mapping[str, str]]) -> np.ndarray:
        """[B, K]: every answer of the rows, every component in the settings' order."""
        answers = [(row.prefix, branch) for row in rows for branch in row.branches]
        by_model = self.model_scores(rows)
        found = []
        for i, (prefix, branch) in enumerate(answers):
            prompt = str(self._tokenizer.decode(list(prefix)))
            response = str(self._tokenizer.decode(list(branch), skip_special_tokens=True))
            by_name = {**self.program_scores(prompt, response, columns[i]), **{name: scores[i] for name, scores in by_model.items()}}
            found.append([by_name[name] for name in self.rewards])
        return np.array(found, np.float32).reshape(len(answers), len(self.rewards))


class RewardClient:
    """The weighted sum of an experience's reward components, wherever they are computed."""

    def __init__(self, run: RunDir, spec: Experiment):
        role = role_of("reward", spec)
        self.rewards = spec.algorithm.rewards  # type: ignore[attr-defined]
        self._asked = _Asked()
        self.client: Any = None
        self._local: LocalReward | None = None
        if role:
            from workbench.serve.client import Client

            self.client = Client(run.path, role)
        else:
            self._local = LocalReward(spec, spec.model.layout)

    def begin(self, experiences: Sequence[Experience]) -> None:
        """Score some of this rank's finished answers by the programs, or ask the server to score them."""
        from workbench.serve import messages

        if self._local:
            for e in experiences:
                e.components = self._local.program_scores(e.prompt, e.response, e.row.columns)
        elif experiences:
            columns = np.array([json.dumps(dict(e.row.columns)).encode() for e in experiences])
            self._asked.add(experiences, self.client.call("reward_model", columns=columns, **messages.request(experiences)))

    def finish(self, experiences: Sequence[Experience]) -> None:
        """Fill components and rewards of all experiences, on every rank."""
        if self._local:
            for name, scores in self._local.model_scores(trees(experiences, {})).items():
                for e, score in zip(experiences, scores, strict=True):
                    e.components[name] = score
        else:
            found = self._asked.collect(experiences[0].step, lambda e, answer, i: answer["rewards"][i].tolist())
            for e in experiences:
                e.components = dict(zip(self.rewards, found[e.place, e.sample], strict=True))
        for e in experiences:
            e.components = {name: e.components[name] for name in self.rewards}
            e.reward = sum(reward.weight * e.components[name] for name, reward in self.rewards.items())


def traffic(*parts: Any) -> Metrics:
    """What the parts that are served cost since it was asked last, all ranks' requests together. Every rank calls it."""
    from workbench.engine import parallel

    total: dict[str, float] = {}
    for mine in parallel.gather_over_all([part.client.traffic() for part in parts if getattr(part, "client", None)]):
        for each in mine:
            for name, value in each.items():
                total[name] = total.get(name, 0.0) + value
    return total


def role_of(part: str, spec: Experiment) -> str | None:
    """The server that a part (critic, reward, reference) is behind; None where it is in the policy's own processes."""
    return next((role for role in spec.algorithm.served if part in role.split("_")), None)  # type: ignore[attr-defined]


def critic_client(run: RunDir, spec: Experiment) -> CriticClient | None:
    """None where the algorithm has no critic."""
    if getattr(spec.algorithm, "critic", None) is None:
        return None
    role = role_of("critic", spec)
    return ServedCritic(run, role) if role else Colocated(LocalCritic(run, spec))


def laid_out(model: Model, layout: Layout) -> Model:
    """The model, shared by ranks in this layout."""
    sizes = {f"{name}_parallel": getattr(layout, name) for name in ("tensor", "pipeline", "context", "expert")}
    return model.model_copy(update={**sizes, "virtual_pipeline": layout.virtual, "sequence_parallel": model.sequence_parallel and layout.tensor > 1})


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
