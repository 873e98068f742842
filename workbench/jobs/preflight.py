"""What would keep a run from starting, told before it is submitted: `workbench preflight`, the Launch form, and `submit` itself."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil

from workbench.backends import base as backends
from workbench.backends import slurm
from workbench.backends.base import Finding, Task
from workbench.data import hub
from workbench.data.readers import locate
from workbench.engine import preconditions
from workbench.processes.driver import task_of
from workbench.rundir import store
from workbench.rundir.store import RunDir
from workbench.settings import AlgorithmConfig, JobConfig
from workbench.settings.sources import EMBEDDED
from workbench.settings.spec import Experiment

SHARED = frozenset(
    [
        "nfs",
        "nfs4",
        "lustre",
        "gpfs",
        "beegfs",
        "beegfs_nodev",
        "ceph",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "panfs",
        "glusterfs",
        "orangefs",
        "pvfs2",
        "wekafs",
        "vastnfs",
        "ocfs2",
        "gfs2",
        "9p",
        "virtiofs",
    ]
)
IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs", "devshm"})
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")


def planned(experiment: Experiment, root: Path) -> Task:
    """The task that `submit` would launch now, in a run directory that is not made."""
    return task_of(RunDir(root / store.new_run_id(experiment.name)), experiment, attempt=1)


def script(experiment: Experiment, root: Path) -> str:
    """The batch script that `submit` would hand in; empty where the backend has none. Raises ValueError for what dask-jobqueue refuses."""
    write = getattr(backends.find(experiment.backend.name), "script", None)
    return write(planned(experiment, root), Path.cwd()) if write else ""


def quick(experiment: Experiment, root: Path) -> list[Finding]:
    """What can be told within seconds: the files, where they lie, and whether the backend's nodes fit. Nothing is started or queued."""
    far = experiment.backend.name != "local"
    return [*_context(experiment), *_files(experiment, root, far), *backends.find(experiment.backend.name).check(planned(experiment, root))]


def check(experiment: Experiment, root: Path, on_node: bool = False) -> list[Finding]:
    """The quick checks; on SLURM also when it would start, and with `on_node` a try on one of its nodes, which waits in the queue.

    Raises:
        ValueError: `on_node` with a backend that has no nodes to try.
    """
    on_slurm = experiment.backend.name == "slurm"
    if on_node and not on_slurm:
        raise ValueError(f"backend={experiment.backend.name} has no nodes that could be tried; --on-node is for backend=slurm")
    problems, task = quick(experiment, root), planned(experiment, root)
    if not on_slurm or any(each.level == "error" for each in problems):
        return problems
    start = slurm.estimate(task)
    waits = any(each.level == "warning" and each.name.endswith("nodes") for each in problems)  # the test of a job refuses what the queue would take
    problems.append(replace(start, level="warning") if waits and start.level == "error" else start)
    return [*problems, *_on_node(experiment, root, task)] if on_node and problems[-1].level != "error" else problems


def _context(experiment: Experiment) -> list[Finding]:
    """Whether rows as long as the settings allow pass the model's context, where its configuration is at hand. The run's start counts those that do."""
    source, longest = experiment.model.source, None
    directory = (
        Path(source) if (Path(source) / "config.json").is_file() else None if source == EMBEDDED else hub.cached(source, experiment.model.revision)
    )
    if directory:
        longest = preconditions.context_length(preconditions.read_config(directory))
    algorithm = experiment.algorithm if "algorithm" in experiment.job.sections else experiment.job
    answer = getattr(algorithm, "max_tokens", 0)
    if longest is None or experiment.data.max_length + answer <= longest:
        return []
    added = f" + max_tokens={answer}" if answer else ""
    message = f"data.max_length={experiment.data.max_length}{added} tokens may pass the model's context of {longest}"
    return [Finding("context", "warning", message, "data.max_length")]


def _files(experiment: Experiment, root: Path, far: bool) -> list[Finding]:
    """Whether the data is there; and for nodes elsewhere, whether what they need lies where they see it."""
    problems, folders = [], {"run folder": (root, "")}
    for key, name in (("train", "training data"), ("validation", "held-out data")):
        source = getattr(experiment.data, key)
        try:
            path = locate(source) if source else None
        except ValueError as error:
            problems.append(Finding(name, "error", str(error), f"data.{key}"))
            continue
        if path:
            folders[name] = path, f"data.{key}"
    if (model := Path(experiment.model.source)).exists():
        folders["model"] = model, "model.source"
    for key, section in (("algorithm", experiment.algorithm), ("job", experiment.job)):
        folders |= {Path(each).name: (Path(each), key) for each in _named_by(section)}
    if not (getattr(experiment.backend, "python", None) or getattr(experiment.backend, "container", None)):
        folders["Python"] = Path(sys.prefix), "backend.python"
    return [*problems, *(_seen_from_afar(name, path, key) for name, (path, key) in folders.items())] if far else problems


def _named_by(section: AlgorithmConfig | JobConfig) -> list[str]:
    """The files and folders that the settings of an algorithm or a job name: functions of the user's own, reward models."""
    named: list[str] = []

    def note(path: str) -> str:
        named.append(path)
        return path

    section.with_absolute_paths(note)
    return [path for path in dict.fromkeys(named) if Path(path).exists()]


def _seen_from_afar(name: str, path: Path, key: str) -> Finding:
    """Whether other nodes see a path as this one does, by its file system."""
    kind, mount = file_system(path)
    real = path.resolve()
    message = f"{real} is on {kind} ({mount})"
    if kind in SHARED or kind.startswith("fuse."):
        return Finding(name, "ok", message, key)
    if kind in IN_MEMORY or any(real.is_relative_to(folder) for folder in (*TEMPORARY, tempfile.gettempdir())):
        return Finding(name, "warning", f"{message}: each node has one of its own there, and sees none of this", key)
    return Finding(name, "warning", f"{message}, a disk of this machine: the nodes see it only where it is exported to them", key)


def file_system(path: Path) -> tuple[str, str]:
    """(kind, mount point) of what a path lies on, or would lie on."""
    real = path.resolve()
    mounts = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    mount = max((each for each in mounts if real.is_relative_to(each)), key=lambda each: len(each.parts), default=Path("/"))
    return mounts.get(mount, "an unknown file system"), str(mount)


def _on_node(experiment: Experiment, root: Path, task: Task) -> list[Finding]:
    """Imports, folders and files, as a rank on one of the nodes has them."""
    root.mkdir(parents=True, exist_ok=True)
    sources = (
        experiment.data.train,
        experiment.data.validation,
        experiment.model.source,
        *_named_by(experiment.algorithm),
        *_named_by(experiment.job),
    )
    files = [source for source in sources if source and Path(source).exists()]
    command = ["-m", "workbench.jobs.on_node", str(root), "--", *files]
    try:
        report = json.loads(slurm.try_on_node(task, command).strip().rpartition("\n")[2])
    except (OSError, ValueError) as error:
        return [Finding("on a node", "error", f"Python did not start there: {error}", "backend.python")]
    host = report["host"]
    problems = [
        Finding(f"on {host}", "error", f"{report['python']} cannot import {name}: {why}", "backend.python") for name, why in report["broken"].items()
    ]
    problems += [Finding(f"on {host}", "error", f"{path} is not there, or cannot be written") for path in report["unwritable"]]
    problems += [Finding(f"on {host}", "error", f"{path} is not there, or cannot be read") for path in report["unreadable"]]
    if getattr(experiment.backend, "gpus_per_node", 0) and not report["gpus"]:
        problems.append(Finding(f"on {host}", "error", "torch sees no GPU there", "backend.gpus_per_node"))
    gpus = f", torch sees {report['gpus']} GPU" if report["gpus"] else ""
    return problems or [Finding(f"on {host}", "ok", f"{report['python']} has all that a rank imports, and sees the run folder and the files{gpus}")]
