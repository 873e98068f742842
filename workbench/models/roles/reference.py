"""The reference policy: the log-probabilities of the policy's first weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.models import messages
from workbench.models.asking import ByToken
from workbench.models.endpoint import TOKENS, Arrays, Field
from workbench.models.frozen import frozen, laid_out
from workbench.models.protocol import Answers, Role, Served, Surroundings, Transport
from workbench.rollout.experience import Experience, fill, group_into_rows
from workbench.settings import AlgorithmConfig, Model
from workbench.settings.online import ReferencedConfig, require
from workbench.settings.outputs import Outputs
from workbench.settings.placement import Place

if TYPE_CHECKING:
    from workbench.engine.step import Policy

OUTPUTS = Outputs(logprobs=True)


def placement(algorithm: AlgorithmConfig, model: Model) -> Place:
    processes = require(algorithm, ReferencedConfig).reference_server
    return Place(processes.processes, processes.layout, (model.source,), "algorithm.reference_server.processes")


class Reference:
    """The policy with its adapters off; without adapters a frozen copy of its first weights."""

    transport: Transport | None = None

    def __init__(self, around: Surroundings):
        spec = around.spec
        assert around.policy is not None
        self._with_adapters = spec.model.lora.rank > 0
        self._base = around.policy if self._with_adapters else frozen(spec.model, around.directory, spec.algorithm.micro_batch_tokens, OUTPUTS)

    def begin(self, experiences: Sequence[Experience]) -> None: ...

    def fill(self, experiences: Sequence[Experience]) -> None:
        outputs = self._base.outputs(group_into_rows(experiences, {}), OUTPUTS, reference=self._with_adapters)
        fill(experiences, [given.of("logprobs_N") for given in outputs], "reference_logprobs")


class Server:
    """`reference_logprobs`: the log-probability of each answered token under the policy's first weights."""

    constant = True

    def __init__(self, around: Surroundings):
        self.policy = frozen(laid_out(around.spec.model, around.layout), around.directory, around.spec.algorithm.micro_batch_tokens, OUTPUTS)

    def endpoints(self) -> Mapping[str, Answers]:
        return {"reference_logprobs": Answers(TOKENS, (Field("logprobs", np.float32, 2),), self.logprobs)}

    def models(self) -> Sequence[Policy]:
        return [self.policy]

    def logprobs(self, arrays: Arrays) -> Arrays:
        outputs = self.policy.outputs(messages.rows(arrays))
        return {"logprobs": messages.by_token(arrays, [given.of("logprobs_N") for given in outputs])}


def local(around: Surroundings) -> Role:
    return Reference(around)


def remote(around: Surroundings, transport: Transport) -> Role:
    return ByToken(transport, "reference_logprobs", "logprobs", "reference_logprobs")


def serve(around: Surroundings) -> Served:
    return Server(around)
