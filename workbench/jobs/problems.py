"""What of a run's folder cannot be read, file by file with the cause; and which of it a resume needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.jobs import inputs
from workbench.rundir import answers, beats, opening, rollouts
from workbench.rundir.files import ByteCursor, read_json
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import COMPLETE, RunDir
from workbench.serve import discovery, health
from workbench.settings import stored
from workbench.settings.composing import SpecError

PRECISIONS = ("fp32", "bf16")
HASH = re.compile("[0-9a-f]{32,64}")
PEM = re.compile(rb"-----BEGIN [A-Z ]+-----\n.+\n-----END [A-Z ]+-----\n", re.DOTALL)
_AWAY = "move it away"


@dataclass(frozen=True)
class Problem:
    """A file that cannot be read, why, and the way out where a resume needs the file; without one it does without."""

    path: Path
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" + (f"; to resume, {self.remedy}" if self.remedy else "")


def problems(run: RunDir) -> list[Problem]:
    """All that is wrong with a run's files; nothing is written. A status that cannot be read is named alone: without it no other file counts."""
    try:
        _ = run.status
    except Unreadable as error:
        return [Problem(error.path, error.reason, "put back the file from a backup, or launch the run anew")]
    return list(_problems(run))


def needed(run: RunDir) -> list[Problem]:
    """Those that keep the run from being resumed."""
    return [problem for problem in problems(run) if problem.remedy]


def _problems(run: RunDir) -> Iterator[Problem]:
    yield from _settings(run)
    yield from _of(run.path / "precision", _precision, "write fp32 or bf16 into it, as the run began")
    yield from _of(run.path / "commit", _hash, "delete it: the run takes model.revision as it is now")
    yield from _of(run.path / "weights", _hash, "delete it: the weights are taken as they are now")
    for path in _paths(run.path / "events", ".jsonl"):
        yield from _of(path, lambda path: _events(run, path), "cut the file before that byte: what comes after it is computed again or forgotten")
    yield from _of(run.path / "control.jsonl", lambda _: run.requests(ByteCursor()))
    yield from _of(run.path / inputs.NAME, inputs.read, "delete it: then nobody knows whether the data files have changed")
    yield from _of(run.path / ".beat", opening.stat, "delete it")
    yield from _checkpoints(run.checkpoints, "move its folder away: the run continues from the one before")
    yield from _checkpoints(run.path / "critic" / "checkpoints", "move its folder away: the run continues from the one before")
    yield from _certificate(run.path / "dask", "delete the folder dask: it is made again")
    try:
        yield from (Problem(error.path, error.reason) for error in beats.problems(run))
    except Unreadable as error:
        yield Problem(error.path, error.reason)
    yield from (Problem(path, "no rollouts of a step can be read in it; left out") for path in rollouts.damaged(run))
    for folder, read in (("endpoints", discovery.read), ("health", health.read)):
        for path in _paths(run.path / folder, ".json"):
            yield from _of(path, discovery.read_http if path.name == discovery.HTTP_FILE else read)
    for path in (*_paths(run.logs, ".log"), *_paths(run.path / "endpoints", ".key")):
        yield from _of(path, opening.stat)
    yield from _of(run.path / answers.JSONL, answers.check_lines)
    yield from _of(run.path / answers.PARQUET, answers.check_table)
    yield from _folders(run)


def _settings(run: RunDir) -> Iterator[Problem]:
    remedy = "put back the file from a backup, or launch the run anew"
    try:
        stored.experiment(run)
    except FileNotFoundError:
        yield Problem(run.path / "spec.yaml", "missing", remedy)
    except Unreadable as error:
        yield Problem(error.path, error.reason, remedy)
    except SpecError as error:
        yield Problem(run.spec_path, "; ".join(str(error).splitlines()), remedy)


def _of(path: Path, read: Callable[[Path], object], remedy: str = "") -> Iterator[Problem]:
    """What is wrong with a file, if it is there."""
    try:
        read(path)
    except FileNotFoundError:
        return
    except Unreadable as error:
        yield Problem(error.path, error.reason, remedy)


def _folders(run: RunDir) -> Iterator[Problem]:
    """Of the layout's folders: that one is a link, or somebody else's."""
    for name, remedy in (("events", _AWAY), ("logs", _AWAY), ("dask", _AWAY), ("endpoints", ""), ("health", "")):
        yield from _of(run.path / name, opening.names, remedy)


def _paths(folder: Path, suffix: str | tuple[str, ...]) -> list[Path]:
    try:
        return [folder / name for name in opening.names(folder) if name.endswith(suffix) and not name.startswith(".")]
    except Unreadable:  # `_folders` names it
        return []


def _precision(path: Path) -> None:
    if (text := opening.read_text(path)) not in PRECISIONS:
        raise Unreadable(path, f"expected one of {', '.join(PRECISIONS)}, got {text[:20]!r}" if text else "empty")


def _hash(path: Path) -> None:
    if not HASH.fullmatch(text := opening.read_text(path)):
        raise Unreadable(path, f"expected a hash, got {text[:20]!r}" if text else "empty")


def _events(run: RunDir, path: Path) -> None:
    for _ in run.events(role=path.stem):
        pass


def _certificate(folder: Path, remedy: str) -> Iterator[Problem]:
    """The driver's certificate and its key: both or none."""
    paths = _paths(folder, (".crt", ".key"))
    for path in paths:
        yield from _of(path, _pem, remedy)
        other = path.with_suffix(".key" if path.suffix == ".crt" else ".crt")
        if other not in paths:
            yield Problem(other, "missing", remedy)


def _pem(path: Path) -> None:
    if not PEM.fullmatch(opening.read_bytes(path)):
        raise Unreadable(path, "no certificate or key in PEM")


def _checkpoints(folder: Path, remedy: str) -> Iterator[Problem]:
    """Of each checkpoint with its marker: the marker, and what it says beside the weights, whose checksums the ranks compare."""
    try:
        steps = [name for name in opening.names(folder) if name.isascii() and name.isdigit()]
    except Unreadable as error:
        yield Problem(error.path, error.reason, _AWAY)
        return
    for step in steps:
        try:
            if not opening.is_file(folder / step / COMPLETE):
                continue
            _marker(folder / step / COMPLETE)
            read_json(folder / step / "meta.json")
        except FileNotFoundError:
            yield Problem(folder / step / "meta.json", "missing", remedy)
        except Unreadable as error:
            yield Problem(error.path, error.reason, remedy)


def _marker(path: Path) -> None:
    files = read_json(path)
    wrong = [name for name, entry in files.items() if not isinstance(entry, dict) or not isinstance(entry.get("bytes"), int) or "sha256" not in entry]
    if wrong:
        raise Unreadable(path, f"says nothing of the size and checksum of {wrong[0][:60]!r}")
