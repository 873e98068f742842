"""The roles of a run, by name: each in the policy's processes, or behind the server that the settings give it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from workbench.models.protocol import Connect, Role, RoleModule, Surroundings
from workbench.settings import placement

if TYPE_CHECKING:
    from workbench.engine.batch import Metrics


def connect_roles(names: Iterable[str], around: Surroundings, connect: Connect) -> dict[str, Role]:
    """The roles, ready to be asked. Two roles of one server share its transport only in name: each has its own."""
    found = {}
    for name in names:
        module: RoleModule = placement.find_role(name)  # type: ignore[assignment]
        server = placement.server_of(name, around.spec.algorithm)
        found[name] = module.remote(around, connect(server)) if server else module.local(around)
    return found


def traffic(roles: Iterable[Role]) -> Metrics:
    """What the roles that are served cost since it was asked last, all ranks' requests together. Every rank calls it."""
    from workbench.engine import parallel

    total: dict[str, float] = {}
    for mine in parallel.gather_over_all([role.transport.traffic() for role in roles if role.transport]):
        for each in mine:
            for name, value in each.items():
                total[name] = total.get(name, 0.0) + value
    return total
