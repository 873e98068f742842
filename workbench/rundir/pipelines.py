"""The folder of a pipeline, in the folder of runs. The runs of its stages lie beside it as all runs do, each with a file that names pipeline and stage.

    runs/pipelines/<id>/pipeline.yaml   the stages with their settings and the ids of their runs, immutable
                        status.json     what was asked of it, and the process that launches its stages in turn; replaced atomically
                        logs/           driver.<attempt>.log of that process
                        .lock           who launches stages, or changes what is to be launched
    runs/<id>/stage                     {"pipeline", "stage"}

How far a pipeline is, is nowhere written: it follows from its runs. Whoever launches a stage holds the lock and looks first whether its run is there: so a
process that is killed at any moment loses no stage and doubles none.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypedDict, Unpack

from workbench.rundir import checks, opening
from workbench.rundir.files import lock, read_json, write_atomic, write_once
from workbench.rundir.lines import Job
from workbench.rundir.listing import runs_root
from workbench.rundir.opening import Unreadable
from workbench.rundir.owned import OwnedFolder
from workbench.rundir.permission import changes
from workbench.rundir.store import STAGE, RunDir

FORMAT = 1
NAME = "pipelines"
"""The folder of pipelines, in that of runs."""
SPEC, STATUS = "pipeline.yaml", "status.json"


class Changes(TypedDict, total=False):
    """What a writer changes of the status."""

    attempt: int
    stopping: bool
    resuming: tuple[str, ...]
    problems: dict[str, str]
    job: Job | None


@dataclass(frozen=True)
class Status:
    """`status.json`.

    `attempt` counts launches and resumes; `stopping`: no further stage is launched; `resuming`: stages whose ended run is to be resumed in this attempt;
    `problems`: why a stage could not be launched, by its name; `job`: the process that launches stages in turn. Times in seconds since the epoch.
    """

    format: int = FORMAT
    created: float = 0.0
    updated: float = 0.0
    attempt: int = 1
    stopping: bool = False
    resuming: tuple[str, ...] = ()
    problems: dict[str, str] = field(default_factory=dict)
    job: Job | None = None


@dataclass(frozen=True)
class PipelineDir(OwnedFolder):
    """One pipeline's folder."""

    @property
    def runs(self) -> Path:
        """The folder of the runs."""
        return self.path.parent.parent

    def spec_text(self) -> str:
        """The text of pipeline.yaml. Raises Unreadable."""
        try:
            return opening.read_text(self.path / SPEC)
        except FileNotFoundError:
            raise Unreadable(self.path / SPEC, "missing") from None

    @property
    def status(self) -> Status:
        """Raises Unreadable: missing, damaged, or made by a newer version."""
        path = self.path / STATUS
        try:
            tree = read_json(path)
        except FileNotFoundError:
            raise Unreadable(path, "missing") from None
        if isinstance(made := tree.get("format"), int) and made > FORMAT:
            raise Unreadable(path, f"made by a newer version (format {made}; this one reads up to {FORMAT})")
        if wrong := checks.pipeline(tree):
            raise Unreadable(path, f"no status: {wrong}")
        return Status(**{**tree, "resuming": tuple(tree["resuming"])})

    def update(self, **changes: Unpack[Changes]) -> Status:
        """Change fields of the status. Call it while the lock is held."""
        status = replace(self.status, **changes, updated=time.time())
        write_atomic(self.path / STATUS, json.dumps(asdict(status)))
        return status

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within, nobody else launches a stage or changes what is to be launched. Raises ReadOnly where this user cannot change the pipeline."""
        self.check_writable()
        with lock(self.path / ".lock"):
            yield


@changes
def create(root: Path, pipeline_id: str, spec_yaml: str) -> PipelineDir:
    """A new pipeline's folder below that of the runs, private to its owner. It appears when all that is in it. Raises OSError."""
    folder = root / NAME
    folder.mkdir(parents=True, exist_ok=True)
    new, final = PipelineDir(folder / f".{pipeline_id}.new"), PipelineDir(folder / pipeline_id)
    new.path.mkdir(mode=0o700)
    try:
        opening.make_folder(new.path / "logs")
        write_once(new.path / SPEC, spec_yaml)
        now = time.time()
        write_atomic(new.path / STATUS, json.dumps(asdict(Status(created=now, updated=now))))
        new.path.rename(final.path)
    except BaseException:
        shutil.rmtree(new.path)
        raise
    return final


def list_pipelines(root: Path) -> list[PipelineDir]:
    """The pipelines of a folder of runs that this user may read, newest first: their ids begin with the time."""
    folder = root / NAME
    if not folder.is_dir():
        return []
    named = (path for path in folder.iterdir() if not path.name.startswith(".") and os.access(path / STATUS, os.R_OK))
    return sorted((PipelineDir(path) for path in named), key=lambda each: each.id, reverse=True)


def find(pipeline_id: str) -> PipelineDir:
    """The pipeline with this id, or the only one whose id begins or ends so; `latest` is the newest.

    Raises:
        ValueError: none or several; the message names the newest ones.
    """
    root = runs_root()
    known = list_pipelines(root)
    if not known:
        raise ValueError(f"no pipeline {pipeline_id!r}: there are none in {root / NAME}; start one: workbench run pipeline=export_demo")
    if pipeline_id == "latest":
        return known[0]
    exact = [each for each in known if each.id == pipeline_id]
    matching = exact or [each for each in known if each.id.startswith(pipeline_id) or each.id.endswith(pipeline_id)]
    if len(matching) != 1 or not pipeline_id:
        names = ", ".join(each.id for each in (matching or known)[:5])
        count = len(matching) if matching else "no"
        raise ValueError(f"{count} pipelines match {pipeline_id!r}; {'they are' if matching else 'the newest are'}: {names}")
    return matching[0]


def mark(pipeline_id: str, stage: str) -> str:
    """The text of a run's file `stage`."""
    return json.dumps({"pipeline": pipeline_id, "stage": stage})


def stage_of(run: RunDir) -> tuple[str, str] | None:
    """(pipeline's id, stage) of a run that is a pipeline's; None for one that is of none, or whose file cannot be read."""
    return _stage_of(run.path)


@lru_cache(maxsize=16384)
def _stage_of(run: Path) -> tuple[str, str] | None:
    """A run gets the file when it is made, or never."""
    try:
        tree = read_json(run / STAGE)
    except (FileNotFoundError, NotADirectoryError, Unreadable):
        return None
    return None if checks.stage(tree) else (tree["pipeline"], tree["stage"])


def pipeline_of(run: RunDir) -> PipelineDir | None:
    """The pipeline that a run is a stage of, where its folder is there."""
    stage = stage_of(run)
    if stage is None or "/" in stage[0] or stage[0].startswith("."):
        return None
    folder = PipelineDir(run.path.parent / NAME / stage[0])
    return folder if opening.is_file(folder.path / STATUS) else None
