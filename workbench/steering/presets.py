"""Settings of the sliders under names of the user's, in a file of the user's that the app and the notebooks share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.machines.logins import state_folder
from workbench.rundir.files import lock, read_json, write_atomic
from workbench.rundir.opening import Unreadable
from workbench.rundir.permission import changes

FILE = "steering-presets.json"
MOST = 200
LONGEST_NAME = 60
LOCK_TIMEOUT_S = 10.0


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = Field(default=1, ge=1, le=1)
    presets: dict[str, dict[str, float]] = {}


def presets() -> dict[str, dict[str, float]]:
    """The ratings of each preset, by name. Raises Unreadable for a damaged file."""
    return dict(sorted(_read(_path()).presets.items()))


@changes
def save_preset(name: str, attributes: Mapping[str, float]) -> None:
    """Keep a setting under a name, in place of one that has it. Raises ValueError for a name or a setting that is not valid, or one too many."""
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a preset's name has 1 to {LONGEST_NAME} printable characters, got {name[:80]!r}")
    if not attributes:
        raise ValueError("a preset needs at least one attribute that is set")
    path = _path()
    with lock(path.with_suffix(".lock"), LOCK_TIMEOUT_S):
        kept = _read(path).presets
        if name not in kept and len(kept) >= MOST:
            raise ValueError(f"{MOST} presets are kept already; delete one first")
        _write(path, {**kept, name: dict(attributes)})


@changes
def remove_preset(name: str) -> None:
    """Forget a preset. Raises ValueError where there is none of that name."""
    path = _path()
    with lock(path.with_suffix(".lock"), LOCK_TIMEOUT_S):
        kept = _read(path).presets
        if name not in kept:
            raise ValueError(f"there is no preset {name[:80]!r}; there are: {', '.join(kept) or 'none'}")
        _write(path, {each: value for each, value in kept.items() if each != name})


def _path() -> Path:
    return state_folder() / FILE


def _read(path: Path) -> _File:
    try:
        return _File.model_validate(read_json(path))
    except FileNotFoundError:
        return _File()
    except ValidationError as error:
        raise Unreadable(path, f"no presets: {error.errors()[0]['msg']}") from None


def _write(path: Path, kept: Mapping[str, Mapping[str, float]]) -> None:
    write_atomic(path, json.dumps({"format": 1, "presets": kept}, ensure_ascii=False, indent=1))
