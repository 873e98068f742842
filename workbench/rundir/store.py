"""The run directory: the contract between a run and whoever looks at it.

    runs/<id>/spec.yaml                  the resolved experiment, immutable
              spec.<attempt>.yaml        the same from this attempt on, where a resume changed how the run goes on
              status.json                format, state, attempt, step, message, job; replaced atomically; one writer at a time
              precision                  what the first gang made of `auto`: fp32 or bf16
              events/<role>.jsonl        one writer a file: {seq, time, kind, step, …}; a torn last line is ignored
              beats/<role>-<rank>.json   what each rank is doing; replaced every second or so, never synced
              control.jsonl              requests: {time, request, …}; rank 0 reads them at each step boundary
              rollouts/<step>.parquet    a step's answers; see `workbench.rundir.rollouts`
              answers.jsonl, answers.parquet  all answers of a job that generates; see `workbench.rundir.answers`
              checkpoints/<step>/        complete only when its marker is there
              critic/checkpoints/<step>/  the critic's, likewise
              critic/journal/            a served critic's lessons since its last checkpoint
              endpoints/<server>.json    where a server listens
              endpoints/<server>.key     what requests to it are sealed with; for the owner alone
              endpoints/<server>.tls/    certificate and key that it and its clients show each other, where it is reached from other machines
              health/<server>.json       a server's account of itself
              logs/                      <role>-<rank>.<attempt>.log, driver.<attempt>.log, and the scheduler's
              job.<attempt>.sh           the batch script, where the backend has one
              dask/                      certificate and key of the driver's connections; on SLURM the scheduler's address too
              .beat                      the driver's sign of life
              .status.lock, .launch.lock  who changes the status, and who launches

Readers poll by byte cursor and never block a writer.

`format` in status.json is the number of this layout and of the names in the files, which versions may change: `FORMAT` in new folders, 1 where
there is no number. Folders with a smaller number are read as they are (`workbench.settings.upgrade` renames their settings) and get today's
number when they are resumed; one with a larger number was made by a newer version, and whoever reads its status is told so (`NewerFormat`).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import NotRequired, TypedDict, Unpack, cast

from workbench.rundir.files import ByteCursor, append_line, last_lines, lock, now_on, private, tail, write_atomic, write_once
from workbench.rundir.lines import Event, Request
from workbench.rundir.permission import changes

FORMAT = 2
"""The newest format that this version reads, and the one that it writes."""
COMPLETE = "COMPLETE"
RESERVE_BYTES = 65536
LOCK_TIMEOUT_S = 10.0


class State(StrEnum):
    """Where a run stands. created -> queued -> starting -> running -> stopping -> completed | stopped | failed."""

    CREATED = "created"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    PREEMPTED = "preempted"

    @property
    def ended(self) -> bool:
        return self in (State.COMPLETED, State.STOPPED, State.FAILED)


LIVE = tuple(state for state in State if not state.ended)


class NewerFormat(ValueError):
    """A newer version made the run folder; the message says so."""

    def __init__(self, run_id: str, format: int):
        self.reason = f"made by a newer version (format {format}; this one reads up to {FORMAT})"
        super().__init__(f"run {run_id} was {self.reason}: open it with that version")


class Job(TypedDict):
    """What a backend gave at the launch: `backends.base.Job`."""

    backend: str
    id: str
    host: str
    started: float
    mark: NotRequired[str]


class Changes(TypedDict, total=False):
    """What a writer changes of the status."""

    format: int
    state: State
    message: str
    attempt: int
    step: int
    total_steps: int
    job: Job | None


@dataclass(frozen=True)
class Status:
    """`status.json`. `attempt` counts launches; times are seconds since the epoch; `job` is what the backend gave."""

    format: int = 1
    state: State = State.CREATED
    message: str = ""
    attempt: int = 0
    step: int = 0
    total_steps: int = 0
    created: float = 0.0
    updated: float = 0.0
    job: Job | None = None

    @classmethod
    def from_json(cls, text: str) -> Status:
        """Raises KeyError, TypeError or ValueError for what this version did not write."""
        tree = json.loads(text)
        return cls(**{**tree, "state": State(tree["state"])})


@dataclass(frozen=True)
class RunDir:
    """One run's folder."""

    path: Path
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.path.name)

    @property
    def spec_path(self) -> Path:
        """What the run is: `spec.yaml`, or the newest `spec.<attempt>.yaml` where a resume changed how it goes on."""
        changed = sorted(self.path.glob("spec.*.yaml"), key=lambda path: int(path.name.split(".")[1]))
        return changed[-1] if changed else self.path / "spec.yaml"

    def change_spec(self, attempt: int, spec_yaml: str) -> None:
        """From this attempt on the run is this. The earlier specs stay."""
        write_once(self.path / f"spec.{attempt}.yaml", spec_yaml)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def events_path(self, role: str = "actor") -> Path:
        return self.path / "events" / f"{role}.jsonl"

    def log_path(self, role: str, attempt: int) -> Path:
        return self.logs / f"{role}.{attempt}.log"

    @property
    def status(self) -> Status:
        """The current status.

        Raises:
            FileNotFoundError: there is no run; NewerFormat: a newer version made it.
        """
        text = (self.path / "status.json").read_text()
        self._check_format(text)
        return Status.from_json(text)

    def readable_format(self) -> int:
        """The format of the folder. Raises as `status` does."""
        return self._check_format((self.path / "status.json").read_text())

    def _check_format(self, status_json: str) -> int:
        """Before anything else of the status is read: a newer version may have other fields there."""
        format = json.loads(status_json).get("format", 1)
        if format > FORMAT:
            raise NewerFormat(self.id, format)
        return format

    def role_logs(self, role: str = "", rank: int | None = None) -> list[Path]:
        """The logs of a role (driver, actor), oldest first; all without one. Each launch has its own."""
        pattern = f"{role or '*'}-{rank}.*.log" if rank is not None else f"{role}*.log"
        return sorted(self.logs.glob(pattern), key=lambda path: (path.stat().st_mtime_ns, path.name))

    def log_tail(self, role: str = "actor", lines: int = 200, rank: int | None = None) -> str:
        """The end of the newest log whose name begins with `role`; empty where there is none."""
        logs = self.role_logs(role, rank)
        return "\n".join(last_lines(logs[-1], lines)) if logs else ""

    def update(self, **changes: Unpack[Changes]) -> Status:
        """Change fields of the status, atomically and durably; two writers take turns."""
        status = self.move(State, **changes)
        assert status is not None
        return status

    def move(self, allowed: Iterable[State], *, since: Status | None = None, **changes: Unpack[Changes]) -> Status | None:
        """As `update`, but only from one of the allowed states: None, and nothing changed, in any other.

        With `since` only while the run is in the attempt and the job that this status tells of: what was found out about those is not said of
        others. A run's end is written even on a full disk, in the space kept back for it.
        """
        states = tuple(allowed)
        with lock(self.path / ".status.lock", LOCK_TIMEOUT_S):  # a page that stands still does not stop the driver: the status is replaced whole
            while True:
                was = self.status
                if was.state not in states or (since and (was.attempt, was.job) != (since.attempt, since.job)):
                    return None
                status = replace(was, **changes, updated=time.time())
                if self.status == was:  # one that stood still meanwhile begins again
                    break
            if status.state.ended:
                (self.path / ".reserve").unlink(missing_ok=True)
            write_atomic(self.path / "status.json", json.dumps(asdict(status)))
        return status

    def begin_attempt(self, message: str) -> Status | None:
        """Queue a new or an ended run: the next attempt's number, no old requests, space kept back for its end. None while it goes on.

        Of two callers one gets None.
        """
        with lock(self.path / ".launch.lock"):
            was = self.status
            if was.state != State.CREATED and not was.state.ended:
                return None
            if (control := self.path / "control.jsonl").exists():
                control.rename(self.path / f"control.{was.attempt}.jsonl")
            control.touch(mode=0o600)  # there from the start: a network file system may remember for long that a file is not
            with open(self.path / ".reserve", "wb", opener=private) as file:
                file.write(bytes(RESERVE_BYTES))
            self.beat()
            return self.update(format=FORMAT, state=State.QUEUED, attempt=was.attempt + 1, message=message, job=None)

    def again(self, message: str) -> Status:
        """The next attempt of a run whose job was started again. One that has ended meanwhile stays as it is."""
        return self.move(LIVE, state=State.QUEUED, attempt=self.status.attempt + 1, message=message) or self.status

    def beat(self) -> None:
        """The driver's sign of life, for a host that cannot see its process."""
        (self.path / ".beat").touch(mode=0o600)

    @property
    def silence_s(self) -> float:
        """Seconds since the driver's last sign of life, or the last change of the status."""
        return now_on(self.path) - max(path.stat().st_mtime for path in (self.path / ".beat", self.path / "status.json") if path.exists())

    @changes
    def request(self, request: str, **values: object) -> None:
        """Ask the running job for something: stop, checkpoint, … It is acted on at the next step boundary."""
        append_line(self.path / "control.jsonl", {"time": time.time(), "request": request, **values})

    def requests(self, cursor: ByteCursor) -> list[Request]:
        return cast(list[Request], list(tail(self.path / "control.jsonl", cursor)))

    def events(self, cursor: ByteCursor | None = None, role: str = "actor") -> Iterator[Event]:
        """The events after the cursor, which moves on; all of them without one. A resumed run's steps can come twice: see `views`."""
        return cast(Iterator[Event], tail(self.events_path(role), cursor or ByteCursor()))


def new_run_id(name: str) -> str:
    """A folder name from a person's: `20261124-101502-dpo-demo-3f9a`."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "run"
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}-{secrets.token_hex(2)}"


@changes
def create(root: Path, name: str, spec_yaml: str) -> RunDir:
    """A new run's folder, private to its owner, with its spec and a first status."""
    root.mkdir(parents=True, exist_ok=True)
    run = RunDir(root / new_run_id(name))
    run.path.mkdir(mode=0o700)
    for folder in ("events", "logs", "checkpoints"):
        (run.path / folder).mkdir(mode=0o700)
    write_once(run.spec_path, spec_yaml)
    now = time.time()
    write_atomic(run.path / "status.json", json.dumps(asdict(Status(format=FORMAT, created=now, updated=now))))
    return run


def runs_root() -> Path:
    """Where runs live: $WORKBENCH_RUNS, or ./runs."""
    return Path(os.environ.get("WORKBENCH_RUNS", "runs")).resolve()


def cache_root() -> Path:
    """Where converted weights and reference log-probabilities are kept: $WORKBENCH_CACHE, or ~/.cache/alignment-workbench."""
    return Path(os.environ.get("WORKBENCH_CACHE", "~/.cache/alignment-workbench")).expanduser()


def list_runs(root: Path) -> list[RunDir]:
    """The runs of one folder, newest first. A folder without a status is not a run (or not yet)."""
    if not root.is_dir():
        return []
    return sorted((RunDir(path) for path in root.iterdir() if is_run(path)), key=lambda run: run.id, reverse=True)


def is_run(path: Path) -> bool:
    """Whether a folder is a run that this user may read: where several users share a folder of runs, each sees their own."""
    try:
        return os.access(path / "status.json", os.R_OK)
    except ValueError:
        return False  # a name that no file has


def find(run_id: str) -> RunDir:
    """The run with this id, or the only one whose id begins or ends so; `latest` is the newest.

    Raises:
        ValueError: none or several; the message names the newest ones.
    """
    known = list_runs(runs_root())
    if run_id == "latest" and known:
        return known[0]
    exact = [run for run in known if run.id == run_id]
    found = exact or [run for run in known if run.id.startswith(run_id) or run.id.endswith(run_id)]
    if not known:
        raise ValueError(f"there are no runs in {runs_root()}; start one: workbench run experiment=dpo_demo")
    if len(found) != 1 or not run_id:
        names = ", ".join(run.id for run in (found or known)[:5])
        raise ValueError(f"{len(found) if found else 'no'} runs match {run_id!r}; {'they are' if found else 'the newest are'}: {names}")
    return found[0]
