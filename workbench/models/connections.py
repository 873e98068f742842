"""The roles of a run, by name: each in the policy's processes, or behind the server that the settings give it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from workbench.models.protocol import Connect, Connected, RoleModule, Surroundings
from workbench.settings import placement

if TYPE_CHECKING:
    from workbench.engine.batch import Metrics


def find_role(name: str) -> RoleModule:
    """The module `workbench.models.roles.<name>`."""
    return cast(RoleModule, placement.find_role(name))


def connect_roles(names: Iterable[str], around: Surroundings, connect: Connect) -> dict[str, Connected]:
    """The roles and those that they ask, ready to be asked. Two roles of one server share its transport only in name: each has its own."""
    connected: dict[str, Connected] = {}
    for name in placement.with_asked(names, around.spec.algorithm, around.spec.model):
        server = placement.server_of(name, around.spec.algorithm)
        here = replace(around, asked=dict(connected))
        connected[name] = find_role(name).remote(here, connect(server)) if server else find_role(name).local(here)
    return connected


def traffic(roles: Iterable[Connected]) -> Metrics:
    """What the roles that are served cost since it was asked last, all ranks' requests together. Every rank calls it."""
    from workbench.engine import parallel

    total: dict[str, float] = {}
    for mine in parallel.gather_over_all([role.transport.traffic() for role in roles if role.transport]):
        for each in mine:
            for name, value in each.items():
                total[name] = total.get(name, 0.0) + value
    return total
