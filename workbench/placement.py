"""Which servers a run has beside its policy, with the processes, layout and models of each. Knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from workbench.layout import Layout, check, known_shape
from workbench.settings import Model

if TYPE_CHECKING:
    from workbench.spec import Experiment


AUTO = "auto"
FASTER_ON_CPUS = ("critic", "reward")
"""What a PPO on one machine of CPUs is faster with: the critic computes while the policy does (`workbench bench placement`)."""


@dataclass(frozen=True)
class Server:
    """One server's gang: `processes` share each model of `sources` as `layout` says. `key` is the setting that counts the processes."""

    role: str
    processes: int
    layout: Layout
    sources: tuple[str, ...]
    key: str


def servers(algorithm: Any, model: Model) -> list[Server]:
    """The servers of a run, in the order of `algorithm.served`; none where the algorithm has no such setting."""
    return [_server(role, algorithm, model) for role in getattr(algorithm, "served", ()) if role != AUTO]


def is_open(experiment: Experiment) -> bool:
    """Whether `algorithm.served` leaves anything to `settled`."""
    return AUTO in getattr(experiment.algorithm, "served", ())


def settled(experiment: Experiment, has_gpus: bool) -> Experiment:
    """An open experiment with `auto` put into roles; `has_gpus` is about this machine. Beside other roles `auto` means nothing."""
    algorithm: Any = experiment.algorithm
    found = tuple(role for role in algorithm.served if role != AUTO)
    if not found and hasattr(algorithm, "critic") and experiment.backend.name == "local" and not has_gpus and find_spec("pytriton"):
        found = FASTER_ON_CPUS
    return experiment.model_copy(update={"algorithm": algorithm.model_copy(update={"served": found})})


def of_role(role: str, algorithm: Any, model: Model) -> Server:
    return next(server for server in servers(algorithm, model) if server.role == role)


def _server(role: str, algorithm: Any, model: Model) -> Server:
    rewards = tuple(reward.model for reward in algorithm.rewards.values() if reward.model is not None)
    if role == "reference":
        place = algorithm.reference_server
        return Server(role, place.processes, place.layout, (model.source,), "algorithm.reference_server.processes")
    if role == "reward":
        place = algorithm.reward_server
        return Server(role, place.processes, place.layout, rewards, "algorithm.reward_server.processes")
    critic = algorithm.critic.model or model
    sources = (critic.source, *(rewards if role == "critic_reward" else ()))
    return Server(role, algorithm.critic.processes, critic.layout, sources, "algorithm.critic.processes")


def problems(algorithm: Any, model: Model) -> list[str]:
    """Why the servers, or what is left in the policy's own processes, cannot be placed so; empty where they can."""
    found = []
    for server in servers(algorithm, model):
        for source in server.sources or (None,):
            try:
                check(server.layout, server.processes, known_shape(source) if source and server.processes > 1 else None, server.key)
            except ValueError as error:
                found.append(f"the {server.role} server: {error}")
    critic = getattr(algorithm, "critic", None)
    if critic and critic.model and critic.model.layout != model.layout and not _served("critic", algorithm.served):
        found.append(
            f"algorithm.critic.model has {critic.model.layout}, the policy {model.layout}: in the policy's own processes they are the same; "
            "serve it (algorithm.served=[critic]), or give it the policy's layout"
        )
    return found


def _served(part: str, roles: Sequence[str]) -> bool:
    return any(part in role.split("_") for role in roles)
