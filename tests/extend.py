"""A copy of the project to which a test adds files: what costs one file is shown by adding it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from workbench.backends import forking

ROOT = Path(__file__).parents[1]
PARTS = ("workbench", "backends", "conf", "app")
WARM = "from workbench.backends import forking; from workbench.processes import WARM; print(forking.own(WARM), flush=True); input()"

_sockets: dict[Path, str] = {}


def extended(tmp_path: Path, files: Mapping[str, str] | None = None) -> Path:
    """A folder with the project's packages, settings and pages, and the new `files`: text by path.

    Raises:
        FileExistsError: one of the files is there already; adding must change nothing.
    """
    folder = tmp_path / "extended"
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, symlinks=True)  # with what is compiled, which is valid for files of the same time
    for name, text in (files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(text)
    return folder


@contextmanager
def warm(folder: Path) -> Iterator[Path]:
    """Within: what the copy's command line launches is forked from one process that has imported the copy, which must not change any more."""
    server = subprocess.Popen(
        [sys.executable, "-c", WARM], cwd=folder, env=_environment(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout
    _sockets[folder] = server.stdout.readline().strip()
    yield folder
    del _sockets[folder]
    server.communicate("\n", timeout=240)


def python(folder: Path, *words: str, timeout_s: float = 240, **env: str) -> subprocess.CompletedProcess[str]:
    """`python WORDS` with the copy's packages in place of the project's; its runs and cache lie in the copy."""
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=_environment(folder) | env, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def workbench(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The copy's command line."""
    return python(folder, "-m", "workbench.terminal.cli", *words, **env)


def _environment(folder: Path) -> dict[str, str]:
    own = {"PYTHONPATH": str(folder), "WORKBENCH_RUNS": str(folder / "runs"), "WORKBENCH_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    shared = {name: value for name, value in os.environ.items() if name != forking.WARM}  # the tests' own server has imported the project
    return shared | own | ({forking.WARM: _sockets[folder]} if folder in _sockets else {})
