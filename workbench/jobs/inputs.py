"""The files that a run learns from, as they were when it was launched (`inputs.json` in its folder): a resume learns from the same ones."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from workbench.data import fingerprints
from workbench.data.fingerprints import Fingerprint
from workbench.rundir.files import read_json, write_atomic
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import RunDir
from workbench.settings.sources import DataError, locate
from workbench.settings.spec import Experiment

NAME = "inputs.json"
_Inputs = TypeAdapter(dict[str, Fingerprint])


def keep(run: RunDir, experiment: Experiment) -> None:
    """Note the files that can be read from here. Raises OSError where the folder cannot be written."""
    noted = {key: fingerprints.of(path) for key, path in _files(experiment).items()}
    write_atomic(run.path / NAME, json.dumps({key: each.model_dump() for key, each in noted.items()}, indent=1))


def read(path: Path) -> dict[str, Fingerprint]:
    """What was noted, by the setting's key. Raises FileNotFoundError, and Unreadable."""
    try:
        return _Inputs.validate_python(read_json(path))
    except ValidationError as error:
        raise Unreadable(path, f"not the files' fingerprints: {error.errors()[0]['msg']}") from None


def changed(run: RunDir) -> list[str]:
    """What of the noted files is no longer as it was, a sentence each; nothing for a run that has no note. Raises Unreadable."""
    try:
        noted = read(run.path / NAME)
    except FileNotFoundError:
        return []
    return [f"{key}: {was.path} has changed since the launch: {how}" for key, was in noted.items() if (how := fingerprints.difference(was))]


def _files(experiment: Experiment) -> dict[str, Path]:
    data, paths = experiment.data, dict[str, Path]()
    named = {"data.train": data.train, "data.validation": data.validation, "data.map": data.map and data.map.rpartition(":")[0]}
    for key, source in named.items():
        try:
            if source and (path := locate(source)):
                paths[key] = path
        except DataError:  # not on this machine: nothing can be noted of it
            continue
    return paths
