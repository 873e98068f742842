"""The reference policy's log-probabilities: in the policy's own processes, or behind PyTriton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from workbench.experience import Experience, fill, trees
from workbench.serve.roles import ByToken, frozen, role_of
from workbench.spec import Experiment
from workbench.store import RunDir

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.engine.step import Policy


class Reference(Protocol):
    """The frozen policy as the trained one's ranks see it. All make the same calls, except `begin`."""

    def begin(self, experiences: Sequence[Experience]) -> None:
        """Some of this rank's rollouts are finished: ask about them already, where asking and computing are apart."""
        ...

    def infer(self, experiences: Sequence[Experience]) -> None:
        """Fill the reference's log-probability of each token of all experiences."""
        ...


class ColocatedReference:
    """The policy with its adapters off; without adapters a frozen copy of its first weights."""

    def __init__(self, spec: Experiment, policy: Policy, directory: Path):
        self._with_adapters = spec.model.lora.rank > 0
        self._base: Any = policy if self._with_adapters else frozen(spec.model, directory, spec.algorithm.micro_batch_tokens)

    def begin(self, experiences: Sequence[Experience]) -> None: ...

    def infer(self, experiences: Sequence[Experience]) -> None:
        found = self._base.outputs(trees(experiences, {}), reference=self._with_adapters, entropy=False)
        fill(experiences, found, "reference_logprobs")


class ServedReference:
    """The base model in processes of its own."""

    def __init__(self, run: RunDir, role: str):
        self._asked = ByToken(run, role, "reference_logprobs", "logprobs")
        self.client, self.begin = self._asked.client, self._asked.begin

    def infer(self, experiences: Sequence[Experience]) -> None:
        self._asked.fill(experiences, "reference_logprobs")


def reference_client(run: RunDir, spec: Experiment, policy: Policy, directory: Path) -> Reference:
    role = role_of("reference", spec)
    return ServedReference(run, role) if role else ColocatedReference(spec, policy, directory)
