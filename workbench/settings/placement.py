"""Which servers a run has beside its policy, with the processes, layout and models of each. Knows no torch.

A server answers for one role, or for several that share its processes. What a role needs is said by its file in `workbench/models/roles/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

from workbench.settings import layout as layouts
from workbench.settings.layout import Layout, check, known_shape
from workbench.settings.online import TOGETHER
from workbench.settings.sections import AlgorithmConfig, Model, Roles

AUTO = "auto"
FASTER_ON_CPUS = ("critic", "reward")
"""What a PPO on one machine of CPUs is faster with: the critic computes while the policy does (`workbench bench placement`)."""


@dataclass(frozen=True)
class Place:
    """What a role asks for: `processes` share each model of `sources` as `layout` says. `key` is the setting that counts the processes.

    `asks` are the roles that it asks itself, from the policy's own processes.
    """

    processes: int
    layout: Layout
    sources: tuple[str, ...]
    key: str
    asks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Server:
    """One server's gang, and the roles that it answers for. The first role's place is the server's; the models are all roles'."""

    name: str
    roles: tuple[str, ...]
    processes: int
    layout: Layout
    sources: tuple[str, ...]
    key: str


class Placed(Protocol):
    """A role's file, as it is read here."""

    def placement(self, algorithm: AlgorithmConfig, model: Model) -> Place: ...


def find_role(name: str) -> Placed:
    """The module `workbench.models.roles.<name>`. Importing it loads no torch."""
    return cast(Placed, import_module(f"workbench.models.roles.{name}"))


def roles_of(server: str) -> tuple[str, ...]:
    """The roles that a server answers for."""
    return TOGETHER.get(server, (server,))


def served(algorithm: AlgorithmConfig) -> tuple[str, ...]:
    """`algorithm.served`; nothing where the algorithm has no such setting."""
    return getattr(algorithm, "served", ())


def server_of(role: str, algorithm: AlgorithmConfig) -> str | None:
    """The server that a role is behind; None where it is in the policy's own processes."""
    return next((name for name in served(algorithm) if role in roles_of(name)), None)


def servers(algorithm: AlgorithmConfig, model: Model) -> list[Server]:
    """The servers of a run, in the order of `algorithm.served`; none where the algorithm has no such setting."""
    return [server(name, algorithm, model) for name in served(algorithm) if name != AUTO]


def server(name: str, algorithm: AlgorithmConfig, model: Model) -> Server:
    """The server called `name`."""
    places = [find_role(role).placement(algorithm, model) for role in roles_of(name)]
    first = places[0]
    return Server(
        name,
        roles_of(name),
        first.processes,
        first.layout,
        tuple(source for placement_of_role in places for source in placement_of_role.sources),
        first.key,
    )


def with_asked(roles: Iterable[str], algorithm: AlgorithmConfig, model: Model) -> list[str]:
    """The roles of an algorithm, each after those that it asks."""
    asked = []
    for role in roles:
        asked += [*with_asked(find_role(role).placement(algorithm, model).asks, algorithm, model), role]
    return list(dict.fromkeys(asked))


def is_open(algorithm: AlgorithmConfig) -> bool:
    """Whether `algorithm.served` leaves anything to `settled`."""
    return AUTO in served(algorithm)


def settled(algorithm: AlgorithmConfig, here: bool, has_gpus: bool) -> AlgorithmConfig:
    """An open algorithm with `auto` put into servers. `here`: it runs on this machine; `has_gpus` is about this machine.

    Beside other servers `auto` means nothing.
    """
    names = tuple(name for name in served(algorithm) if name != AUTO)
    if not names and hasattr(algorithm, "critic") and here and not has_gpus and find_spec("pytriton"):
        names = FASTER_ON_CPUS
    return algorithm.model_copy(update={"served": names})


def check_served(algorithm: AlgorithmConfig, model: Model, roles: Roles) -> None:
    """Raises ValueError where `algorithm.served` names a role twice, one that advances, or one that is neither among `roles` nor asked by one."""
    named = [role for name in served(algorithm) if name != AUTO for role in roles_of(name)]
    if len(set(named)) < len(named):
        raise ValueError(f"algorithm.served={','.join(served(algorithm))} names a part twice")
    if advancing := [role for role in named if roles.get(role) == "advancing"]:
        raise ValueError(
            f"algorithm.served={advancing[0]}: in {algorithm.name} it advances with the policy, and a server is sent no weights; leave it out"
        )
    there = with_asked(roles, algorithm, model) if named else roles
    if missing := [role for role in named if role not in there]:
        raise ValueError(f"algorithm {algorithm.name} has no {missing[0]} to serve; it has: {', '.join(there)}")


def problems(algorithm: AlgorithmConfig, model: Model) -> list[str]:
    """Why the servers, or what is left in the policy's own processes, cannot be placed so; empty where they can."""
    messages = []
    for each in servers(algorithm, model):
        for source in each.sources or (None,):
            try:
                check(each.layout, each.processes, known_shape(source) if source and each.processes > 1 else None, each.key)
            except ValueError as error:
                messages.append(f"the {each.name} server: {error}")
    teacher = getattr(getattr(algorithm, "teacher", None), "source", None)
    alone = model.layout.ranks == 1 or server_of("teacher", algorithm)
    if teacher and not alone and (wrong := layouts.problems(model.layout, model.layout.ranks, known_shape(teacher))):
        messages.append(f"algorithm.teacher.source={teacher} is in the policy's own processes and layout: {'; '.join(wrong)}")
    critic = getattr(algorithm, "critic", None)
    if critic and critic.model and critic.model.layout != model.layout and not server_of("critic", algorithm):
        messages.append(
            f"algorithm.critic.model has {critic.model.layout}, the policy {model.layout}: in the policy's own processes they are the same; "
            "serve it (algorithm.served=[critic]), or give it the policy's layout"
        )
    return messages
