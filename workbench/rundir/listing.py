"""The runs of a folder, and one of them by its name."""

from __future__ import annotations

import os
from pathlib import Path

from workbench.rundir import creation
from workbench.rundir.store import RunDir


def runs_root() -> Path:
    """Where runs live: $WORKBENCH_RUNS, or ./runs."""
    return Path(os.environ.get("WORKBENCH_RUNS", "runs")).resolve()


def list_runs(root: Path) -> list[RunDir]:
    """The runs of one folder, newest first: those that this user may read, their own and others', and their own that are damaged."""
    if not root.is_dir():
        return []
    return sorted((RunDir(path) for path in root.iterdir() if is_run(path)), key=lambda run: (creation.time_of(run.path), run.id), reverse=True)


def is_run(path: Path) -> bool:
    """Whether there is a run of this name: a folder, or a link to one, with a status or a spec. What it holds may still be unreadable.

    Another's that this user may not read is none: where several users share a folder of runs, each sees what is open to them.
    """
    if path.name.startswith("."):
        return False
    try:
        present = [os.path.lexists(path / name) for name in ("status.json", "spec.yaml")]
        if not any(present):
            return False
        return path.lstat().st_uid == os.geteuid() or not present[0] or os.access(path / "status.json", os.R_OK)
    except (ValueError, OSError):
        return False  # a name that no file has, or a folder that is gone


def find(run_id: str) -> RunDir:
    """The run with this id, or the only one whose id begins or ends so; `latest` is the newest.

    Raises:
        ValueError: none or several; the message names the newest ones.
    """
    known = list_runs(runs_root())
    if run_id == "latest" and known:
        return known[0]
    exact = [run for run in known if run.id == run_id]
    runs = exact or [run for run in known if run.id.startswith(run_id) or run.id.endswith(run_id)]
    if not known:
        raise ValueError(f"no run {run_id!r}: there are no runs in {runs_root()}; start one: workbench run experiment=dpo_demo")
    if len(runs) != 1 or not run_id:
        names = ", ".join(run.id for run in (runs or known)[:5])
        raise ValueError(f"{len(runs) if runs else 'no'} runs match {run_id!r}; {'they are' if runs else 'the newest are'}: {names}")
    return runs[0]
