"""What SLURM says of its jobs: one squeue call for all of them, kept for a few seconds, and sacct for those that left the queue.

Only options that squeue has had since long before 20.11 are used; accounting is asked for where there is one.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.backends.base import Entry, Job, JobStatus

COMMAND_TIMEOUT_S = 20.0
MAX_AGE_S = 5.0
OLDEST = (20, 11)
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
REASONS = {
    "Priority": "behind jobs of higher priority",
    "Resources": "waiting for nodes",
    "Dependency": "waiting for another job",
    "BeginTime": "queued again a moment ago",
    "ReqNodeNotAvail": "nodes it needs are not available",
    "PartitionTimeLimit": "its time limit is longer than the partition's",
    "QOSMaxJobsPerUserLimit": "you have as many jobs as the quality of service allows",
}
ENDS = {
    "TIMEOUT": "reached its time limit before the run was saved",
    "NODE_FAIL": "lost a node",
    "OUT_OF_MEMORY": "ran out of memory",
    "PREEMPTED": "was preempted",
    "DEADLINE": "reached its deadline",
    "BOOT_FAIL": "could not boot its nodes",
}
NEVER = "DependencyNeverSatisfied"
SEPARATOR = "\x1f"
FORMAT = SEPARATOR.join(("%i", "%T", "%r", "%S", "%D", "%N", "%P", "%j", "%u", "%M", "%l", "%b"))


@dataclass(frozen=True)
class Queue:
    """A snapshot. `error` is why there is none."""

    time: float
    jobs: Mapping[str, Entry]
    error: str = ""


_lock = threading.Lock()
_last: dict[tuple[str, bool], Queue] = {}


def command(*arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout_s: float = COMMAND_TIMEOUT_S):
    """Run a SLURM command, never through a shell. Raises OSError where there is no such command, TimeoutError (an OSError) where it does not answer."""
    try:
        return subprocess.run(
            arguments,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # others' jobs and nodes may be called anything
            check=False,
            timeout=timeout_s,
            umask=0o077,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{arguments[0]} did not answer within {timeout_s:g} s") from None
    except FileNotFoundError:
        raise OSError(f"{arguments[0]}: no such command on this machine; backend=slurm needs SLURM's commands, as a login node has them") from None


def version() -> tuple[int, ...]:
    """SLURM's version, as (22, 5, 8). Raises OSError without SLURM."""
    return tuple(int(part) for part in re.findall(r"\d+", command("sbatch", "--version").stdout)[:3])


def named(version: tuple[int, ...]) -> str:
    """A version as SLURM writes it: 22.05.8."""
    return ".".join(f"{part:02}" if i == 1 else str(part) for i, part in enumerate(version))


def too_old() -> str:
    """Why this SLURM cannot run our jobs; empty where it can. Raises OSError without SLURM."""
    have = version()
    if not have or have >= OLDEST:
        return ""
    return f"this is SLURM {named(have)}; the job's steps share its nodes with srun --overlap, which SLURM has since {named(OLDEST)}"


def queue(max_age_s: float = MAX_AGE_S, everyone: bool = False) -> Queue:
    """This user's jobs, those that ended lately among them; or everyone's that wait or run. Several callers share one squeue.

    Those that wait for it while it takes long are served by it too: its age counts from when they asked.
    """
    key, oldest = (os.environ.get("SLURM_CONF", ""), everyone), time.time() - max_age_s
    with _lock:
        known = _last.get(key)
        if known is None or known.time < oldest:
            _last[key] = known = _ask(() if everyone else ("--states=all", f"--user={os.getuid()}"))
        return known


def look(job: Job, max_age_s: float = MAX_AGE_S) -> JobStatus:
    """What is known of one job."""
    job_id, now = job.id, queue(max_age_s)
    if not now.error and job_id not in now.jobs:
        now = queue(max_age_s=0)  # it may have been handed in since
    if now.error:
        return JobStatus(None, time=now.time)
    entry = now.jobs.get(job_id)
    if entry is None:
        return _from_accounting(job_id, now.time)
    if entry.waits:
        return JobStatus(True, waiting=waiting(entry), time=now.time)
    if entry.state in RUNNING:
        return JobStatus(True, time=now.time)
    if entry.reason == NEVER:
        return JobStatus(
            False, ended=f"SLURM job {job_id} was taken out of the queue: a job that it waited for did not complete", cancelled=True, time=now.time
        )
    return _ended(job_id, entry.state, "", now.time)


def waiting(entry: Entry) -> str:
    """Why a job waits and when SLURM expects it to start, for people."""
    reason = REASONS.get(entry.reason.partition(",")[0], "")
    expected = "" if entry.start in ("N/A", "") else f"; expected to start {entry.start.replace('T', ' ')}"
    message = f"{reason} ({entry.reason})" if reason else "in the queue" if entry.reason in ("None", "") else entry.reason
    return f"SLURM job {entry.id}: {message}{expected}"


def _ask(whose: Sequence[str]) -> Queue:
    began = time.time()
    try:
        done = command("squeue", "--noheader", "--noconvert", *whose, f"--format={FORMAT}")
    except OSError as error:
        return Queue(time.time(), {}, str(error))
    if done.returncode:
        return Queue(time.time(), {}, done.stderr.strip() or f"squeue exited with {done.returncode}")
    jobs = {}
    for line in done.stdout.split("\n"):
        if line.count(SEPARATOR) != FORMAT.count(SEPARATOR):
            continue  # a job's name may have a line break in it
        name, state, reason, start, num_nodes, *rest = line.split(SEPARATOR)
        job_id, plus, component = name.partition("+")
        if not plus or component == "0":  # of a heterogeneous job the first component, which has the driver
            jobs[job_id] = Entry(job_id, state, reason, start, int(num_nodes), *rest, waits=state in WAITING)
    return Queue(began, jobs)


@functools.lru_cache(maxsize=256)
def _accounted(job_id: str, _cluster: str, _minute: int) -> tuple[str, str]:
    """(state, exit code) in the accounting; empty where there is none or it does not know the job."""
    try:
        done = command("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job_id}", "--format=State,ExitCode")
    except OSError:
        return "", ""
    state, _, code = done.stdout.strip().partition("\n")[0].partition("|")
    return state, code


def _from_accounting(job_id: str, when: float) -> JobStatus:
    state, code = _accounted(job_id, os.environ.get("SLURM_CONF", ""), int(time.time() // 60))
    word = state.partition(" ")[0]
    if not state:
        return JobStatus(False, ended=f"SLURM knows no job {job_id} any more", time=when)
    if word in WAITING or word in RUNNING:
        return JobStatus(True, time=when)
    return _ended(job_id, state, code, when)


def _ended(job_id: str, state: str, code: str, when: float) -> JobStatus:
    word = state.partition(" ")[0]
    if word == "CANCELLED":
        by = state.removeprefix("CANCELLED").strip()
        return JobStatus(False, ended=f"SLURM job {job_id} was cancelled{f' {by}' if by else ''} (scancel)", cancelled=True, time=when)
    what = ENDS.get(word, f"ended as {word}")
    return JobStatus(False, ended=f"SLURM job {job_id} {what}" + (f" (exit code {code})" if code not in ("", "0:0") else ""), time=when)
