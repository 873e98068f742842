"""A copy of the project to which a test adds files: what costs one file is shown by adding it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("workbench", "backends", "conf", "app")


def extended(tmp_path: Path, files: Mapping[str, str] | None = None) -> Path:
    """A folder with the project's packages, settings and pages, and the new `files`: text by path.

    Raises:
        FileExistsError: one of the files is there already; adding must change nothing.
    """
    folder = tmp_path / "extended"
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in (files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(text)
    return folder


def python(folder: Path, *words: str, timeout_s: float = 240, **env: str) -> subprocess.CompletedProcess[str]:
    """`python WORDS` with the copy's packages in place of the project's; its runs and cache lie in the copy."""
    own = {"PYTHONPATH": str(folder), "WORKBENCH_RUNS": str(folder / "runs"), "WORKBENCH_CACHE": str(folder / "cache"), "COLUMNS": "200", **env}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def workbench(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The copy's command line."""
    return python(folder, "-m", "workbench.terminal.cli", *words, **env)
