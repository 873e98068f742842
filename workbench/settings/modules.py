"""Algorithms and kinds of job by their names: each is a file that is imported when it is named. Importing one loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Protocol, cast

from workbench.settings.naming import module_names, nearest
from workbench.settings.outputs import Outputs
from workbench.settings.sections import AlgorithmConfig, JobConfig, Roles

NO_ALGORITHM = "none"
"""The algorithm's name in a job that has none."""


class AlgorithmModule(Protocol):
    """A file of workbench/algorithms/ as the settings see it; `workbench.algorithms.Algorithm` is all of it."""

    Config: type[AlgorithmConfig]
    ROLES: Roles
    OUTPUTS: Outputs | Callable[[AlgorithmConfig], Outputs]


class JobModule(Protocol):
    """A file of workbench/processes/kinds/. `work` is what a rank (`workbench.processes.rank.Rank`) does."""

    Config: type[JobConfig]
    work: Callable[..., None]


def algorithm_names() -> list[str]:
    """The algorithms there are: the files of workbench/algorithms/."""
    return module_names("algorithms")


def find_algorithm(name: str) -> AlgorithmModule:
    """The module `workbench.algorithms.<name>`. Importing it loads no torch.

    Raises:
        ValueError: no such algorithm; the message names the nearest and lists all.
    """
    if name not in algorithm_names():
        raise ValueError(f"unknown algorithm {name!r}{nearest(name, algorithm_names())}; there are: {', '.join(algorithm_names())}")
    return cast(AlgorithmModule, import_module(f"workbench.algorithms.{name}"))


def outputs_of(algorithm: AlgorithmConfig) -> Outputs:
    """What the algorithm wants of the policy; log-probabilities where a job has none."""
    outputs = find_algorithm_or_none(algorithm.name).OUTPUTS
    return outputs if isinstance(outputs, Outputs) else outputs(algorithm)


def job_names() -> list[str]:
    """The kinds of job there are: the files of workbench/processes/kinds/."""
    return module_names("processes/kinds")


def find_job(name: str) -> JobModule:
    """The module `workbench.processes.kinds.<name>`. Importing it loads no torch.

    Raises:
        ValueError: no such kind; the message names the nearest and lists all.
    """
    if name not in job_names():
        raise ValueError(f"unknown kind of job {name!r}{nearest(name, job_names())}; there are: {', '.join(job_names())}")
    return cast(JobModule, import_module(f"workbench.processes.kinds.{name}"))


def find_algorithm_or_none(name: str) -> AlgorithmModule:
    """As `find_algorithm`, or what stands in the place of one for `NO_ALGORITHM`."""
    return _NO_ALGORITHM if name == NO_ALGORITHM else find_algorithm(name)


_NO_ALGORITHM = cast(AlgorithmModule, SimpleNamespace(Config=AlgorithmConfig, ROLES={}, OUTPUTS=Outputs(logprobs=True)))
"""In the place of an algorithm's file, for a kind of job that has none."""
