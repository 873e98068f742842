"""Single-node jobs of batch systems other than SLURM, through dask-jobqueue's classes and configuration.

A job runs the driver as `local` does, on one node. It is submitted, looked at and cancelled with the system's own commands; it is not queued
again by itself: a run that ended early is resumed by hand. Each system is a file that names its commands.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from workbench.backends import _jobqueue, base
from workbench.backends.base import Finding, Job, JobStatus, Task

TIMEOUT_S = 60.0
LOOK_S = 10

Word = Annotated[str, StringConstraints(pattern=r"^[^\s'\"\\#]+$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\r\n]+$")]


class Config(base.Config):
    """The options that every such system is given. An empty field is left to dask-jobqueue's configuration."""

    num_nodes: int = Field(default=1, ge=1, le=1, description="One: jobs of several nodes need SLURM.")
    queue: Word | None = Field(default=None, description="Queue.")
    account: Word | None = Field(default=None, description="Account or project that pays.")
    time_limit: Word | None = Field(default=None, description="Longest time, in the system's own words.")
    cpus_per_node: int | None = Field(default=None, ge=1, le=4096, description="CPUs; empty: one a rank and thread.")
    memory: Word = Field(default="16GB", description="Memory of the node.")
    directives: tuple[Line, ...] = Field(default=(), description="Further options of the system, as they stand after its mark in a script.")
    prologue: tuple[Line, ...] = Field(default=(), description="Shell lines that come first.")
    python: str | None = Field(default=None, min_length=1, description="Python on the node; empty: the one that submits.")


@dataclass(frozen=True)
class System:
    """A system's name in dask-jobqueue and its commands; the job's id is the first number of `id_pattern` in what `submit` answers."""

    name: str
    submit: Sequence[str]
    cancel: Sequence[str]
    ask: Sequence[str]
    account_key: str = "project"
    id_pattern: str = r"(\d+)"
    gone_pattern: str = r"(?i)unknown job|not found|not exist|has finished|no (matching |such )?job"
    """How `ask` says on its standard error that it knows no such job (any more). Other errors tell nothing: its server may be away for a while."""
    from_stdin: bool = False
    """The script is the command's standard input."""
    inline: str = ""
    """The mark of directives that go to the command line, with the script as the last argument."""
    fallback: dict[str, object] = field(default_factory=dict)
    directives_by_key: bool = False

    def script(self, task: Task, cwd: Path) -> str:
        """The batch script. Raises ValueError for what dask-jobqueue refuses."""
        config = task.config
        assert isinstance(config, Config)
        log = shlex.quote(str(task.run_dir / "logs" / f"{self.name}.{task.attempt}.log"))
        exports = [f"export {key}={shlex.quote(value)}" for key, value in task.env.items()]
        driver = " ".join([_jobqueue.PYTHON, *map(shlex.quote, task.driver[1:])])
        directives = dict(line.split("=", 1) for line in config.directives) if self.directives_by_key else list(config.directives)
        walltime = {} if self.directives_by_key else {"walltime": config.time_limit, "queue": config.queue, self.account_key: config.account}
        component = {
            **walltime,
            "cores": config.cpus_per_node or config.ranks_per_node * max(1, config.threads_per_rank),
            "memory": config.memory,
            "processes": 1,
            "job_name": "".join(c for c in task.run_dir.name if c.isascii() and (c.isalnum() or c in "-_.")) or "run",
            "job_extra_directives": directives,
            "job_script_prologue": list(config.prologue),
            "python": config.python,
        }
        body = "; ".join(["umask 077", f"cd {shlex.quote(str(cwd))}", *exports, f"exec {driver} >> {log} 2>&1"])
        return _jobqueue.render(_jobqueue.Request(self.name, [component], body, name=component["job_name"], fallback=self.fallback))

    def check(self, task: Task) -> list[Finding]:
        """Whether the system's commands are here; what its nodes have is not asked."""
        missing = [command[0] for command in (self.submit, self.ask, self.cancel) if not shutil.which(command[0])]
        if missing:
            return [Finding(self.name, "error", f"{', '.join(missing)}: no such command on this machine", "backend.name")]
        return [Finding(self.name, "ok", f"{self.submit[0]} is here; what its nodes have is not asked")]

    def launch(self, task: Task) -> Job:
        """Submit the job. Raises OSError in the system's words."""
        try:
            text = self.script(task, Path.cwd())
        except ValueError as error:
            raise OSError(str(error)) from None
        path = task.run_dir / f"job.{task.attempt}.sh"
        path.touch(mode=0o600)
        path.write_text(text)
        command = [*self.submit, *([] if self.from_stdin else self._inline(text) if self.inline else [str(path)])]
        done = _command(command, env=dict(task.env), stdin=text if self.from_stdin else None)
        match = re.search(self.id_pattern, done.stdout)
        if done.returncode or not match:
            raise OSError((done.stderr or done.stdout).strip() or f"{self.submit[0]} exited with {done.returncode}")
        return Job(backend=self.name, id=match[1], host=socket.gethostname(), started=time.time())

    def look(self, job: Job) -> JobStatus:
        """Whether the system still lists the job."""
        listed = _listed((*self.ask, job.id), self.gone_pattern, int(time.time() // LOOK_S))
        return JobStatus(listed, ended="" if listed else f"the {self.name} job {job.id} ended before the run did")

    def withdraw(self, job: Job) -> bool:
        """These systems are not asked whether a job has started: it is stopped as a running one is."""
        return False

    def kill(self, job: Job) -> None:
        """Cancel the job. Raises ValueError in the system's words."""
        done = _command([*self.cancel, job.id])
        if done.returncode:
            raise ValueError((done.stderr or done.stdout).strip())

    def _inline(self, text: str) -> list[str]:
        lines = text.splitlines()
        options = [word for line in lines if line.startswith(self.inline) for word in shlex.split(line.removeprefix(self.inline))]
        return [*options, "\n".join(line for line in lines if not line.startswith("#"))]


@functools.lru_cache(maxsize=256)
def _listed(command: tuple[str, ...], gone_pattern: str, _moment: int) -> bool | None:
    try:
        done = _command(command)
    except OSError:
        return None
    if done.returncode and not re.search(gone_pattern, done.stderr + done.stdout):
        return None
    return done.returncode == 0 and bool(done.stdout.strip())


def _command(arguments: Sequence[str], env: dict[str, str] | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Never through a shell. Raises OSError where the command is not there or does not answer."""
    try:
        return subprocess.run(
            arguments,
            input=stdin,
            env={**os.environ, **(env or {})},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=TIMEOUT_S,
            umask=0o077,
        )
    except FileNotFoundError:
        raise OSError(f"{arguments[0]}: no such command on this machine") from None
    except subprocess.TimeoutExpired:
        raise OSError(f"{arguments[0]} did not answer within {TIMEOUT_S:g} s") from None
