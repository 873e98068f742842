"""The reward: the components of each answer's worth, of programs and of models, and their weighted sum."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.packing import Row
from workbench.models import messages
from workbench.models.asking import Asked
from workbench.models.endpoint import TOKENS, Arrays, BadRequest, Field
from workbench.models.frozen import frozen, laid_out
from workbench.models.protocol import Answers, Role, Served, Surroundings, Transport
from workbench.rewards import resolve
from workbench.rollout.experience import Experience, trees
from workbench.settings import Model, Reward
from workbench.settings.outputs import Outputs
from workbench.settings.placement import Place

if TYPE_CHECKING:
    from workbench.engine.step import Policy

OUTPUTS = Outputs(scores=1)


def place(algorithm: Any, model: Model) -> Place:
    sources = tuple(reward.model for reward in algorithm.rewards.values() if reward.model is not None)
    processes = algorithm.reward_server
    return Place(processes.processes, processes.layout, sources, "algorithm.reward_server.processes")


class RewardModels:
    """The components of a reward in this gang: programs, and models that every rank computes together."""

    def __init__(self, around: Surroundings):
        from workbench.engine import hf

        spec = around.spec
        self.rewards: Mapping[str, Reward] = spec.algorithm.rewards  # type: ignore[attr-defined]
        self._tokenizer = hf.tokenizer(around.directory)
        self._programs = {name: resolve.find(r.program) for name, r in self.rewards.items() if r.program is not None}
        self.models: dict[str, Policy] = {}
        for name, reward in self.rewards.items():
            if reward.model is not None:
                model = laid_out(Model(source=reward.model, precision=spec.model.precision), around.layout)
                self.models[name] = frozen(model, hf.local_directory(reward.model), spec.algorithm.micro_batch_tokens, OUTPUTS)

    def program_scores(self, prompt: str, response: str, columns: Mapping[str, str]) -> dict[str, float]:
        return {name: resolve.score(function, name, prompt, response, columns) for name, function in self._programs.items()}

    def model_scores(self, rows: Sequence[Row]) -> dict[str, list[float]]:
        """By component, a score for each answer of the rows."""
        return {name: [float(s) for given in policy.outputs(rows) for s in given.of("scores_SK")[:, 0]] for name, policy in self.models.items()}

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


class LocalReward:
    """The reward in the policy's own processes."""

    transport: Transport | None = None

    def __init__(self, models: RewardModels):
        self._models = models

    def begin(self, experiences: Sequence[Experience]) -> None:
        for e in experiences:
            e.components = self._models.program_scores(e.prompt, e.response, e.row.columns)

    def fill(self, experiences: Sequence[Experience]) -> None:
        for name, scores in self._models.model_scores(trees(experiences, {})).items():
            for e, score in zip(experiences, scores, strict=True):
                e.components[name] = score
        _add_up(experiences, self._models.rewards)


class RemoteReward:
    """The reward behind a server."""

    def __init__(self, transport: Transport, rewards: Mapping[str, Reward]):
        self.transport: Transport | None = transport
        self._call, self._rewards, self._asked = transport.call, rewards, Asked()

    def begin(self, experiences: Sequence[Experience]) -> None:
        if experiences:
            columns = np.array([json.dumps(dict(e.row.columns)).encode() for e in experiences])
            self._asked.add(experiences, self._call("reward_model", columns=columns, **messages.request(experiences)))

    def fill(self, experiences: Sequence[Experience]) -> None:
        found = self._asked.collect(experiences[0].step, lambda e, answer, i: answer["rewards"][i].tolist())
        for e in experiences:
            e.components = dict(zip(self._rewards, found[e.place, e.sample], strict=True))
        _add_up(experiences, self._rewards)


def _add_up(experiences: Sequence[Experience], rewards: Mapping[str, Reward]) -> None:
    for e in experiences:
        e.components = {name: e.components[name] for name in rewards}
        e.reward = sum(reward.weight * e.components[name] for name, reward in rewards.items())


class Server:
    """`reward_model`: the components of each answer's reward, [B, K] in the settings' order."""

    constant = True

    def __init__(self, around: Surroundings):
        self.reward = RewardModels(around)

    def endpoints(self) -> Mapping[str, Answers]:
        return {"reward_model": Answers((*TOKENS, Field("columns", bytes, 1)), (Field("rewards", np.float32, 2),), self.score)}

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


def local(around: Surroundings) -> Role:
    return LocalReward(RewardModels(around))


def remote(around: Surroundings, transport: Transport) -> Role:
    return RemoteReward(transport, around.spec.algorithm.rewards)  # type: ignore[attr-defined]


def serve(around: Surroundings) -> Served:
    return Server(around)
