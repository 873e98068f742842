"""The run directory: the contract between a run and whoever looks at it.

    runs/<id>/spec.yaml                  the resolved experiment, immutable
              spec.<attempt>.yaml        the same from this attempt on, where a resume changed how the run continues
              status.json                format, state, attempt, step, message, job; replaced atomically; one writer at a time
              once                       the name under which it is launched only once; not there where it has none
              stage                      the pipeline and the stage that it is; not there where it is none: `workbench.rundir.pipelines`
              inputs.json                checksums of the data files at the launch
              precision                  what the first gang made of `auto`: fp32 or bf16
              commit, weights            the first gang's: a hub model's commit; the fingerprint of the weights that the run began with
              events/<role>.jsonl        one writer a file: {seq, time, kind, step, …}; a torn last line is ignored
              beats/<role>-<rank>.json   what each rank is doing; replaced every second or so, never synced
              control.jsonl              requests: {time, request, …}; rank 0 reads them at each step boundary
              rollouts/<step>.parquet    a step's answers; see `workbench.rundir.rollouts`
              export/                    the Hugging Face directory that a job of the kind export makes
              answers.jsonl, answers.parquet  all answers of a job that generates; see `workbench.rundir.answers`
              annotated.jsonl, rewarded.jsonl, pairs.jsonl  answers with ratings, with rewards, in pairs; see `workbench.rundir.annotations`
              scored.jsonl               answers with log-probabilities, likewise
              attributes.json            what the model is conditioned on; see `workbench.data.targets`
              adherence.json             how well answers are what was requested; see `workbench.rundir.adherence`
              checkpoints/<step>/        complete only when its marker is there
              critic/checkpoints/<step>/  the critic's, likewise
              critic/journal/            a served critic's lessons since its last checkpoint
              endpoints/<server>.json    where a server listens
              endpoints/<server>.key     what requests to it are sealed with
              endpoints/<server>.tls/    certificate and key that it and its clients show each other, where it is reached from other machines
              endpoints/http.json        where a policy endpoint is asked, and its token
              health/<server>.json       a server's account of itself
              logs/                      <role>-<rank>.<attempt>.log, driver.<attempt>.log, and the scheduler's
              job.<attempt>.sh           the batch script, where the backend has one
              dask/                      certificate and key of the driver's connections; on SLURM the scheduler's address too
              .beat                      the driver's sign of life
              .status.lock, .launch.lock  who changes the status, and who launches

Readers poll by byte cursor and never block a writer. `workbench.rundir.opening` says which files count: those of the run's owner, without links.
A file that is not what its writer leaves raises `Unreadable`, which names it and the cause.

`format` in status.json is the number of this layout and of the names in the files, which versions may change: `FORMAT` in new folders, 1 where
there is no number. Folders with a smaller number are read as they are (`workbench.settings.upgrade` renames their settings) and get today's
number when they are resumed; one with a larger number was made by a newer version, and whoever reads its status gets an error (`NewerFormat`).
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from workbench.rundir import checks, opening
from workbench.rundir.files import ByteCursor, append_line, last_lines, lock, now_on, read_json, tail, touch, write_atomic, write_once
from workbench.rundir.lines import Event, Job, Request
from workbench.rundir.opening import Unreadable, opener
from workbench.rundir.owned import OwnedFolder
from workbench.rundir.permission import changes

FORMAT = 2
"""The newest format that this version reads, and the one that it writes."""
COMPLETE = "COMPLETE"
ONCE = "once"
STAGE = "stage"
RESERVE_BYTES = 65536
LOCK_TIMEOUT_S = 10.0


class State(StrEnum):
    """created -> queued -> starting -> running -> stopping -> completed | stopped (what was done is saved) | killed (at once) | failed."""

    CREATED = "created"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    STOPPED = "stopped"
    KILLED = "killed"
    FAILED = "failed"
    PREEMPTED = "preempted"

    @property
    def ended(self) -> bool:
        return self in (State.COMPLETED, State.STOPPED, State.KILLED, State.FAILED)


LIVE = tuple(state for state in State if not state.ended)


class NewerFormat(Unreadable):
    """A newer version made the run folder; the message says so."""

    def __init__(self, path: Path, format: int):
        super().__init__(path, f"made by a newer version (format {format}; this one reads up to {FORMAT})")
        self.args = (f"run {path.parent.name} was {self.reason}: open it with that version",)


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
    def from_tree(cls, tree: Mapping[str, object]) -> Status:
        """Raises ValueError for what this version did not write."""
        if wrong := checks.status(tree):
            raise ValueError(wrong)
        return cls(**{**tree, "state": State(cast(str, tree["state"]))})


@dataclass(frozen=True)
class RunDir(OwnedFolder):
    """One run's folder."""

    @property
    def spec_path(self) -> Path:
        """What the run is: `spec.yaml`, or the newest `spec.<attempt>.yaml` where a resume changed how it continues."""
        changed = [int(match[1]) for name in opening.names(self.path) if (match := _SPEC.fullmatch(name))]
        return self.path / (f"spec.{max(changed)}.yaml" if changed else "spec.yaml")

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
    def status_path(self) -> Path:
        return self.path / "status.json"

    @property
    def status(self) -> Status:
        """The current status. Raises Unreadable, with the cause: there is none, it is damaged, not the owner's, or a newer version made it."""
        tree = self._status_tree()
        try:
            return Status.from_tree(tree)
        except ValueError as error:
            raise Unreadable(self.status_path, f"no status: {error}") from None

    def readable_format(self) -> int:
        """The format of the folder. Raises as `status` does."""
        return self.status.format

    def _status_tree(self) -> dict[str, Any]:
        """Of a format that this version reads: that is looked at first, because a newer version may have other fields."""
        try:
            tree = read_json(self.status_path)
        except FileNotFoundError:
            raise Unreadable(self.status_path, "missing") from None
        format = tree.get("format", 1)
        if isinstance(format, int) and format > FORMAT:
            raise NewerFormat(self.status_path, format)
        return tree

    def role_logs(self, role: str = "", rank: int | None = None) -> list[Path]:
        """The logs of a role (driver, actor), oldest first; all without one. Each launch has its own."""
        pattern = f"{role or '*'}-{rank}.*.log" if rank is not None else f"{role}*.log"
        logs = [self.logs / name for name in fnmatch.filter(opening.names(self.logs), pattern) if not name.startswith(".")]
        return sorted(logs, key=lambda path: (_changed_ns(path), path.name))

    def log_tail(self, role: str = "actor", lines: int = 200, rank: int | None = None) -> str:
        """The end of the newest log whose name begins with `role`; empty where there is none, and the cause where it cannot be read."""
        try:
            logs = self.role_logs(role, rank)
            return "\n".join(last_lines(logs[-1], lines)) if logs else ""
        except FileNotFoundError:
            return ""
        except Unreadable as error:
            return f"({error})"

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
                opening.unlink(self.path / ".reserve")
            write_atomic(self.status_path, json.dumps(asdict(status)))
        return status

    def begin_attempt(self, message: str) -> Status | None:
        """Queue a new or an ended run: the next attempt's number, no old requests, space kept back for its end. None while it is running.

        Of two callers one gets None.
        """
        with lock(self.path / ".launch.lock"):
            was = self.status
            if was.state != State.CREATED and not was.state.ended:
                return None
            with open(self.path / ".reserve", "wb", opener=opener) as file:  # first: where the disk is full nothing has changed yet
                file.write(bytes(RESERVE_BYTES))
            control = self.path / "control.jsonl"
            if opening.is_file(control) and opening.stat(control).st_size:
                opening.rename(control, f"control.{was.attempt}.jsonl")
            touch(control)  # there from the start: a network file system may remember for long that a file is not
            self.beat()
            return self.update(format=FORMAT, state=State.QUEUED, attempt=was.attempt + 1, message=message, job=None)

    def again(self, message: str) -> Status:
        """The next attempt of a run whose job was started again. One that has ended meanwhile stays as it is."""
        return self.move(LIVE, state=State.QUEUED, attempt=self.status.attempt + 1, message=message) or self.status

    def beat(self) -> None:
        """The driver's sign of life, for a host that cannot see its process."""
        touch(self.path / ".beat")

    @property
    def silence_s(self) -> float:
        """Seconds since the driver's last sign of life, or the last change of the status."""
        signs = (path for path in (self.path / ".beat", self.status_path) if opening.is_file(path))
        return now_on(self.path) - max(opening.stat(path).st_mtime for path in signs)

    @changes
    def request(self, request: str, **values: object) -> None:
        """Ask the running job for something: stop, checkpoint, … It is acted on at the next step boundary."""
        append_line(self.path / "control.jsonl", {"time": time.time(), "request": request, **values})

    def requests(self, cursor: ByteCursor) -> list[Request]:
        """The requests after the cursor, which moves on. Raises Unreadable, with the byte, for a line that is none."""
        return cast(list[Request], list(tail(self.path / "control.jsonl", cursor, checks.request)))

    def events(self, cursor: ByteCursor | None = None, role: str = "actor") -> Iterator[Event]:
        """The events after the cursor, which moves on; all of them without one. A resumed run's steps can come twice: see `views`.

        Raises:
            Unreadable: a line that is no event; the message names the file and the byte.
        """
        return cast(Iterator[Event], tail(self.events_path(role), cursor or ByteCursor(), checks.event))


_SPEC = re.compile(r"spec\.([0-9]{1,9})\.yaml")


def _changed_ns(path: Path) -> int:
    """When a log was written last; the beginning of time for one that is gone, or is no file to be read."""
    try:
        return opening.stat(path).st_mtime_ns
    except (FileNotFoundError, Unreadable):
        return 0


def new_run_id(name: str) -> str:
    """A folder name from a person's: `20261124-101502-dpo-demo-3f9a`."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "run"
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}-{secrets.token_hex(2)}"


@changes
def create(root: Path, name: str, spec_yaml: str, once: str = "", run_id: str = "", stage: str = "") -> RunDir:
    """A new run's folder, private to its owner, with its spec and a first status. It appears when all that is in it; else nothing is left.

    `once` is the name that `workbench.rundir.once` finds it by, `stage` what `workbench.rundir.pipelines` says of it. With a `run_id` that was made
    before, what a process left that was killed while it created the run is replaced.

    Raises:
        OSError: the disk is full, or there are no rights; FileExistsError: there is a run with this id.
    """
    root.mkdir(parents=True, exist_ok=True)
    final = root / (run_id or new_run_id(name))
    run = RunDir(root / f".{final.name}.new")
    if run_id and final.exists():
        raise FileExistsError(f"run {run_id} is there already")
    if run_id and run.path.exists():
        shutil.rmtree(run.path)
    run.path.mkdir(mode=0o700)
    try:
        if opening.owner_of(run.path) != os.geteuid():
            raise OSError(errno.EPERM, "what this user makes here belongs to another one: set WORKBENCH_RUNS to another file system", str(root))
        for folder in ("events", "logs", "checkpoints"):
            opening.make_folder(run.path / folder)
        write_once(run.path / "spec.yaml", spec_yaml)
        if once:
            write_once(run.path / ONCE, once)
        if stage:
            write_once(run.path / STAGE, stage)
        now = time.time()
        write_atomic(run.status_path, json.dumps(asdict(Status(format=FORMAT, created=now, updated=now))))
        run.path.rename(final)
    except BaseException:
        shutil.rmtree(run.path)
        raise
    return RunDir(final)


def discard(run: RunDir) -> None:
    """Take away a run that has never been launched. Raises ReadOnly and OSError."""
    run.check_writable()
    assert run.status.attempt == 0, "a run that was launched stays"
    shutil.rmtree(run.path)
