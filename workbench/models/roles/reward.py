"""The reward: the components of each answer's worth, each scored by its kind, and their weighted sum.

A component's score that is unknown and stays so is None, and so is then the sum, unless the component's weight is 0.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from workbench.data.packing import Row
from workbench.data.rows import PromptOnly
from workbench.models import messages
from workbench.models.asking import Asked
from workbench.models.endpoint import TOKENS, Arrays, BadRequest, Field
from workbench.models.frozen import laid_out
from workbench.models.protocol import Answers, Judging, Scoring, Served, Surroundings, Transport
from workbench.models.reward_models import RewardModel
from workbench.rewards.base import Finished, Given, Kind, Need, Scorer, Scores, Verdict, Waiting, before_stop
from workbench.rollout.experience import Experience
from workbench.settings import AlgorithmConfig, Model
from workbench.settings.online import Reward, SamplingConfig, find_reward_kind, require, sources_of
from workbench.settings.placement import Place

if TYPE_CHECKING:
    from workbench.engine.batch import Metrics
    from workbench.engine.step import Policy

ME = "reward"


def placement(algorithm: AlgorithmConfig, model: Model) -> Place:
    cfg = require(algorithm, SamplingConfig)
    processes, rewards = cfg.reward_server, cfg.rewards.values()
    asks = dict.fromkeys(need.role for reward in rewards for need in _needs(reward) if need.role != ME)
    return Place(processes.processes, processes.layout, sources_of(rewards, ME), "algorithm.reward_server.processes", tuple(asks))


def _kind(reward: Reward) -> Kind:
    return cast(Kind, find_reward_kind(reward.kind))


def _needs(reward: Reward) -> Sequence[Need]:
    return _kind(reward).needs(reward.settings)


@dataclass(frozen=True)
class Component:
    """A component with its scorer. `each` as its kind says; `together`: all ranks score together, because a role is asked."""

    name: str
    each: bool
    together: bool
    scorer: Scorer

    def at_once(self, answers: Sequence[Finished]) -> Scores:
        """The scores of a kind whose answers are known at once. Raises TypeError where it breaks its word."""
        scores = self.scorer(answers)
        if isinstance(scores, Waiting) or scores.tallies:
            raise TypeError(f"reward {self.name}: a kind with EACH neither waits nor has tallies; set EACH = False in its file")
        return self._checked(scores, answers)

    def all_ranks(self, answers: Sequence[Finished]) -> Scores | Waiting:
        """The scores of answers that all ranks hold alike, the same on all of them. Every rank calls it."""
        from workbench.engine import parallel

        scores = self.scorer(answers) if self.together or parallel.rank() == 0 else Scores([])
        scores = scores if self.together else parallel.from_first(scores)
        return scores if isinstance(scores, Waiting) else self._checked(scores, answers)

    def _checked(self, scores: Scores, answers: Sequence[Finished]) -> Scores:
        if len(scores.values) != len(answers):
            raise ValueError(f"reward {self.name}: {len(scores.values)} scores for {len(answers)} answers")
        return scores


class RewardModels:
    """The components of a reward in this gang: those that `wanted` picks, and the models that every rank computes together for them."""

    def __init__(self, around: Surroundings, wanted: Callable[[Kind], bool] = lambda kind: True):
        self._around = around
        rewards = {name: reward for name, reward in around.online.rewards.items() if wanted(_kind(reward))}
        self.models = {name: self._model(need) for name, reward in rewards.items() for need in _needs(reward) if need.role == ME}
        self.components = [self._component(name, reward) for name, reward in rewards.items()]

    def _model(self, need: Need) -> RewardModel:
        from workbench.engine import hf

        around = self._around
        assert need.source is not None
        model = laid_out(Model(source=need.source, precision=around.spec.model.precision), around.layout)
        return RewardModel(model, hf.local_directory(need.source), around.directory, around.online.micro_batch_tokens)

    def _component(self, name: str, reward: Reward) -> Component:
        kind, needs = _kind(reward), _needs(reward)
        judge = cast(Judging, self._around.asked["judge"]).of(name) if any(need.role == "judge" for need in needs) else _no_judge

        def score(answers: Sequence[Finished]) -> list[float | None]:
            return self.models[name].score(answers)

        return Component(name, kind.EACH, bool(needs), kind.scorer(name, reward.settings, Given(score, judge)))


def _no_judge(questions: Sequence[str], options: Sequence[str]) -> Sequence[Verdict | None] | Waiting:
    raise TypeError('this kind asks a judge that it does not need: add Need("judge") to what its needs() returns')


def _finished(experiences: Sequence[Experience]) -> list[Finished]:
    return [
        Finished(e.prompt_index, e.prompt, e.response, e.row.columns, e.row.prefix, e.scored_tokens or e.tokens, e.row.asked) for e in experiences
    ]


class LocalReward:
    """The reward in the policy's own processes."""

    transport: Transport | None = None

    def __init__(self, components: Sequence[Component], rewards: Mapping[str, Reward]):
        self._components, self._rewards = components, rewards
        self._tallies: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    def begin(self, experiences: Sequence[Experience]) -> None:
        answers = _finished(experiences)
        for component in self._components:
            if component.each and not component.together:
                _give(experiences, component.name, component.at_once(answers).values)

    def fill(self, experiences: Sequence[Experience]) -> Waiting | None:
        answers = _finished(experiences)
        waiting: Waiting | None = None
        for component in self._components:
            if component.name in experiences[0].components:
                continue  # scored as the answers finished, or before another component was waited for
            scores = component.at_once(answers) if component.each else component.all_ranks(answers)
            if isinstance(scores, Waiting):
                waiting = waiting or scores
                continue
            _give(experiences, component.name, scores.values)
            for name, tally in scores.tallies.items():
                self._tallies[name].append(tally)
        if waiting is None:
            _add_up(experiences, self._rewards)
        return waiting

    def metrics(self) -> Metrics:
        sums = {name: [sum(part) for part in zip(*tallies, strict=True)] for name, tallies in self._tallies.items()}
        self._tallies.clear()
        return {name: total / count for name, (total, count) in sums.items() if count}


class RemoteReward:
    """The reward behind a server; what has to see all of a step's answers, or may wait, is scored here."""

    def __init__(self, transport: Transport, here: Sequence[Component], rewards: Mapping[str, Reward]):
        self.transport: Transport | None = transport
        self._call, self._asked = transport.call, Asked()
        self._there = [name for name, reward in rewards.items() if _kind(reward).EACH]
        self._here = LocalReward(here, rewards)
        self.metrics = self._here.metrics

    def begin(self, experiences: Sequence[Experience]) -> None:
        if experiences and self._there:
            columns = np.array([json.dumps(dict(e.row.columns)).encode() for e in experiences])
            asked = np.array([messages.prompt_text(e.row.asked).encode() for e in experiences])
            self._asked.add(experiences, self._call("reward_model", columns=columns, asked=asked, **messages.request(experiences)))

    def fill(self, experiences: Sequence[Experience]) -> Waiting | None:
        if self._there and self._there[0] not in experiences[0].components:
            scores = self._asked.collect(experiences[0].step, _taken)
            for e in experiences:
                e.components.update(zip(self._there, scores[e.prompt_index, e.sample], strict=True))
        return self._here.fill(experiences)


def _taken(e: Experience, answer: Arrays, i: int) -> list[float | None]:
    return [value if known else None for value, known in zip(answer["rewards"][i].tolist(), answer["known"][i].tolist(), strict=True)]


def _give(experiences: Sequence[Experience], name: str, values: Sequence[float | None]) -> None:
    for e, value in zip(experiences, values, strict=True):
        e.components[name] = value


def _add_up(experiences: Sequence[Experience], rewards: Mapping[str, Reward]) -> None:
    for e in experiences:
        e.components = {name: e.components[name] for name in rewards}
        e.reward = weighted_sum(e.components, rewards)


def weighted_sum(components: Mapping[str, float | None], rewards: Mapping[str, Reward]) -> float | None:
    """The reward of an answer: None where a component is unknown that has a weight."""
    terms = [(reward.weight, components[name]) for name, reward in rewards.items() if reward.weight or components[name] is not None]
    if any(value is None for _, value in terms):
        return None
    return sum(weight * value for weight, value in terms if value is not None)


class Server:
    """`reward_model`: the components of each answer's reward that depend on it alone, [B, K] in the settings' order; `known` is 0 where there is no score.

    `asked` are the prompts' messages, for reward models that have other tokens than the policy.
    """

    constant = True

    def __init__(self, around: Surroundings):
        from workbench.engine import hf

        self.reward = RewardModels(around, lambda kind: kind.EACH)
        self._tokenizer, self._stop_strings = hf.tokenizer(around.directory), around.online.stop_strings

    def endpoints(self) -> Mapping[str, Answers]:
        outputs = (Field("rewards", np.float32, 2), Field("known", np.uint8, 2))
        return {"reward_model": Answers((*TOKENS, Field("columns", bytes, 1), Field("asked", bytes, 1)), outputs, self.score)}

    def models(self) -> Sequence[Policy]:
        return [model.policy for model in self.reward.models.values()]

    def score(self, arrays: Arrays) -> Arrays:
        try:
            columns = [json.loads(text) for text in arrays["columns"]]
        except ValueError as error:
            raise BadRequest(f"columns: one JSON object a row; {error}") from None
        if wrong := next((text for text, column in zip(arrays["columns"], columns, strict=True) if not isinstance(column, dict)), None):
            raise BadRequest(f"columns: one JSON object a row; got {wrong[:100]!r}")
        try:
            asked = [messages.prompt_of(text) for text in arrays["asked"]]
        except ValueError as error:
            raise BadRequest(f"asked: a prompt's messages as JSON, or null; {error}") from None
        answers = self._answers(messages.rows(arrays), columns, asked)
        by_component = [component.at_once(answers).values for component in self.reward.components]
        rows = list(zip(*by_component, strict=True)) or [()] * len(answers)
        scores_BK = np.array([[0.0 if value is None else value for value in row] for row in rows], np.float32)
        known_BK = np.array([[value is not None for value in row] for row in rows], np.uint8)
        return {"rewards": scores_BK.reshape(len(answers), -1), "known": known_BK.reshape(len(answers), -1)}

    def _answers(self, rows: Sequence[Row], columns: Sequence[Mapping[str, str]], asked: Sequence[PromptOnly | None]) -> list[Finished]:
        finished: list[Finished] = []
        for prompt_index, row in enumerate(rows):
            prompt = str(self._tokenizer.decode(list(row.prefix)))
            for tokens in row.branches:
                response, scored = before_stop(tokens, self._decode, self._stop_strings)
                finished.append(Finished(prompt_index, prompt, response, columns[len(finished)], row.prefix, scored, asked[len(finished)]))
        return finished

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))


def local(around: Surroundings) -> Scoring:
    return LocalReward(RewardModels(around).components, around.online.rewards)


def remote(around: Surroundings, transport: Transport) -> Scoring:
    return RemoteReward(transport, RewardModels(around, lambda kind: not kind.EACH).components, around.online.rewards)


def serve(around: Surroundings) -> Served:
    return Server(around)
