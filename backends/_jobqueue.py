"""Batch scripts through dask-jobqueue's job classes and configuration (`~/.config/dask/jobqueue.yaml`).

dask_jobqueue takes over SIGINT when it is imported and must be on the main thread: so a script is rendered by a process of its own,
`python -m workbench.backends._jobqueue`, which reads a Request as JSON and writes the script.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

WORKER, PYTHON = "@WORKER@", "@PYTHON@"
"""In a request's body: dask-jobqueue's worker command, and its Python. Both are shell words already."""


@dataclass(frozen=True)
class Request:
    """A script of a system (`slurm`, `pbs`, …): the directives of each component of the job, then `first`, the prologue, and the body.

    `components` are keywords of the system's job class; a None leaves it to dask-jobqueue's configuration. Several make a
    heterogeneous job, with `separator` between their directives. `without` are beginnings of directives that are left out.
    """

    system: str
    components: Sequence[Mapping[str, Any]]
    body: str
    scheduler: str = ""
    name: str = "node"
    first: str = ""
    separator: str = ""
    without: Sequence[str] = ()
    fallback: Mapping[str, Any] = field(default_factory=dict)
    """What the class insists on, where neither the settings nor the configuration say."""


def render(request: Request) -> str:
    """The script. Raises ValueError for what dask-jobqueue refuses."""
    command = [sys.executable, "-m", "workbench.backends._jobqueue"]
    done = subprocess.run(command, input=json.dumps(asdict(request)), capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise ValueError(f"dask-jobqueue could not render the script for {request.system}: {reason}")
    return done.stdout


def _render(request: Request) -> str:
    from importlib import import_module

    from dask import config

    module = import_module(f"dask_jobqueue.{request.system}")
    job_class = next(cls for name, cls in vars(module).items() if name.lower() == f"{request.system}job")
    section = f"jobqueue.{request.system}"
    config.set({f"{section}.log-directory": None, f"{section}.name": None})  # the run directory has the logs and gives the name
    for key, value in request.fallback.items():
        if config.get(f"{section}.{key}", None) is None:
            config.set({f"{section}.{key}": value})
    python = next(filter(None, (request.components[0].get("python"), config.get(f"{section}.python"), shlex.quote(sys.executable))))
    jobs = [job_class(request.scheduler, request.name, **_with_configured(component, section), python=python) for component in request.components]
    headers = [_without(job.job_header or "", request.without) for job in jobs]
    job = jobs[0]
    job.job_header = f"\n{request.separator}\n".join(headers) + f"\n{request.first}"
    body = request.body
    if "%(job_script_prologue)s" not in job._script_template:  # HTCondor's script is one command
        body = "; ".join([*job._job_script_prologue, body])
    job._command_template = body.replace(WORKER, job._command_template).replace(PYTHON, python)
    return job.job_script()


def _with_configured(component: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The component's keywords; its lists and mappings come after what the configuration has there."""
    from dask import config

    given = {key: value for key, value in component.items() if key != "python"}
    for key, value in given.items():
        known = config.get(f"{section}.{key.replace('_', '-')}", None)
        if isinstance(value, list):
            given[key] = [*(known or ()), *value]
        elif isinstance(value, dict):
            given[key] = {**(known or {}), **value}
    return given


def _without(header: str, beginnings: Sequence[str]) -> str:
    return "\n".join(line for line in header.splitlines() if not line.startswith(tuple(beginnings)))


if __name__ == "__main__":
    sys.stdout.write(_render(Request(**json.load(sys.stdin))))
