"""What comes with the project and where it lies: below the package, through links in a clone and as files in an installed wheel."""

from __future__ import annotations

from pathlib import Path

import workbench

PACKAGE = Path(workbench.__file__).resolve().parent
CONF = PACKAGE / "conf"
APP = (PACKAGE / "app").resolve()
CONSTRAINTS = PACKAGE / "constraints.txt"
"""The versions that the project is tested with, for pip's option `-c`."""


def find(name: str | Path) -> Path | None:
    """The file or folder that a name such as `workbench/data/demo/preferences.jsonl` gives, or None where it is not below the package."""
    given = Path(name)
    if given.parts[:1] != (PACKAGE.name,) or ".." in given.parts:
        return None
    path = PACKAGE.joinpath(*given.parts[1:])
    return path if path.exists() else None


def pip_install(*packages: str) -> str:
    """The command that installs packages in the versions that the project is tested with."""
    here = Path.cwd() / CONSTRAINTS.name
    file = CONSTRAINTS.name if here.is_file() and here.samefile(CONSTRAINTS) else str(CONSTRAINTS)
    return " ".join(("pip install -c", file, *packages))
