"""What a role is: a model beside the policy, as the policy's ranks ask it and as a server answers for it.

A role is one file of `workbench/models/roles/`. It computes in the policy's own processes or behind a server; whoever asks sees no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from workbench.models.endpoint import Arrays, Field
from workbench.rewards.base import Judge, Waiting
from workbench.settings.layout import Layout
from workbench.settings.online import SamplingConfig, require
from workbench.settings.spec import Experiment

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.engine.batch import Metrics
    from workbench.engine.step import Policy
    from workbench.rollout.experience import Experience
    from workbench.rundir.store import RunDir


class Transport(Protocol):
    """The way to a server of the run."""

    def call(self, endpoint: str, **arrays: Any) -> Future[Arrays]:
        """The answer's future. It raises BadRequest for what the server refuses."""
        ...

    def traffic(self) -> dict[str, float]:
        """Seconds on the wire and in the server since it was asked last, by endpoint."""
        ...


Connect = Callable[[str], Transport]
"""The way to a server by its name."""


class Connected(Protocol):
    """A role, wherever it is computed."""

    @property
    def transport(self) -> Transport | None:
        """The way to its server; None in the policy's own processes."""
        ...


class Role(Connected, Protocol):
    """A model beside the policy. Every rank of the policy has one; all make the same calls, except `begin`."""

    def begin(self, experiences: Sequence[Experience]) -> None:
        """Some of this rank's answers are finished: ask about them already, where asking and computing are apart."""
        ...

    def fill(self, experiences: Sequence[Experience]) -> Waiting | None:
        """Fill what the role knows of all experiences. Where not all is known yet, the same on every rank, it is to be called again."""
        ...


class Scoring(Role, Protocol):
    """The role that scores answers."""

    def metrics(self) -> Metrics:
        """What the scorers counted since it was asked last, the same on every rank."""
        ...


class Judging(Connected, Protocol):
    """A role that another asks, about questions."""

    def of(self, component: str) -> Judge:
        """The judge of a component of the reward."""
        ...


class Learning(Role, Protocol):
    """A role that learns beside the policy, from lessons that carry their step: one that is sent again is learnt once."""

    def train(self, experiences: Sequence[Experience], step: int) -> Callable[[], Metrics]:
        """Begin the lesson of step `step` (from 1); what is returned waits for its metrics."""
        ...

    def save(self, step: int) -> None: ...

    def restore(self, step: int) -> None:
        """Go to the weights after `step` steps. Raises ValueError where there is no checkpoint of that step."""
        ...


class Advancing(Role, Protocol):
    """A frozen copy of the policy that is moved up to it now and then. What it is, is in the policy's checkpoints."""

    def advance(self) -> None:
        """From now on it is the policy as it is now."""
        ...


@dataclass(frozen=True)
class Surroundings:
    """What a role is built from. `policy` is whose processes it shares, None in a server; `directory` the policy's first weights; `asked` are the roles
    that it asks, by name.
    """

    run: RunDir
    spec: Experiment
    layout: Layout
    directory: Path
    policy: Policy | None = None
    asked: Mapping[str, Connected] = field(default_factory=dict)

    @property
    def online(self) -> SamplingConfig:
        """The algorithm's settings, for a role that only algorithms with rollouts have. Raises TypeError for another's."""
        return require(self.spec.algorithm, SamplingConfig)


@dataclass(frozen=True)
class Answers:
    """One endpoint of a served role: what it takes, what it gives, and the function, which every rank of the server calls."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    compute: Callable[[Arrays], Arrays]


class Served(Protocol):
    """A role in a server: what it answers, and the models that answer. `constant` where their weights stay as they are."""

    constant: bool

    def endpoints(self) -> Mapping[str, Answers]: ...

    def models(self) -> Sequence[Policy]: ...


class RoleModule(Protocol):
    """A file of `workbench/models/roles/`; `placement` besides, which `workbench.settings.placement` reads without torch."""

    def local(self, around: Surroundings) -> Connected:
        """The role in the policy's own processes."""
        ...

    def remote(self, around: Surroundings, transport: Transport) -> Connected:
        """The role behind a server."""
        ...

    def serve(self, around: Surroundings) -> Served:
        """The role in a server's processes."""
        ...
