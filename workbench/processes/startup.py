"""What every process of a run does first: it reads the settings, joins its gang, and settles what only the machine can tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.rundir import opening
from workbench.rundir.files import write_atomic
from workbench.rundir.store import RunDir
from workbench.settings.spec import Experiment

if TYPE_CHECKING:
    from workbench.settings.layout import Layout

WEIGHTS = "weights"
"""The run's file with the fingerprint of its first weights (`workbench.engine.weight_files.fingerprint`)."""


def join(run: RunDir, experiment: Experiment, layout: Layout) -> Experiment:
    """Start this process's gang. Returns the experiment with the run's precision in place of `auto`: the first gang that comes decides for all."""
    from workbench.engine import device

    device.import_megatron()
    from workbench.engine import parallel

    parallel.start(layout)
    if parallel.rank() == 0 and not _settled(run, "precision"):
        _settle(run, "precision", device.native_precision())
    parallel.from_first(None)
    return settled(run, experiment)


def fetched(run: RunDir, experiment: Experiment) -> tuple[Path, Experiment]:
    """The folder of the policy's first weights, and the experiment with the commit that a hub model's are of: the first gang that comes decides for all.

    Raises:
        ValueError: as `workbench.engine.hf.local_directory`; or the weights are others than those that the run began with.
    """
    from workbench.engine import hf, weight_files

    experiment = settled(run, experiment)
    source = experiment.model.source
    directory = hf.local_directory(source, experiment.model.revision)
    commit = hf.commit_of(source, directory)
    if commit is not None:
        if not _settled(run, "commit"):
            _settle(run, "commit", commit)
        experiment = settled(run, experiment)
        if experiment.model.revision != commit:
            directory = hf.local_directory(source, experiment.model.revision)
    now = weight_files.fingerprint(directory)
    if not _settled(run, WEIGHTS):
        _settle(run, WEIGHTS, now)
    if _settled(run, WEIGHTS) != now:
        raise ValueError(_other_weights(run, directory))
    return directory, experiment


def changed_weights(run: RunDir, experiment: Experiment) -> list[str]:
    """What a resume is to be refused for: a model's directory, seen from here, with other weights than the run began with. Imports no torch."""
    from workbench.engine import weight_files

    directory, was = Path(experiment.model.source).expanduser(), _settled(run, WEIGHTS)
    if not was or not (directory / "config.json").is_file() or weight_files.fingerprint(directory) == was:
        return []
    return [_other_weights(run, directory)]


def accept_other_weights(run: RunDir) -> None:
    """From the next start on the run is on the weights that its model has then."""
    if opening.is_file(run.path / WEIGHTS):
        opening.unlink(run.path / WEIGHTS)


def _other_weights(run: RunDir, directory: Path) -> str:
    return (
        f"model.source: {directory} has other weights than when the run began ({run.path / WEIGHTS}): its adapters would be on another model, its reference"
        " another one; put the files back, or resume with --changed-data"
    )


def at_revision(experiment: Experiment, revision: str | None) -> Experiment:
    """The experiment with its model at a revision."""
    return experiment.model_copy(update={"model": experiment.model.model_copy(update={"revision": revision})})


def settled(run: RunDir, experiment: Experiment) -> Experiment:
    """The experiment with the precision that the run began in, and the commit of its hub model. Unchanged where none is to be settled, or the run has not begun."""
    precision, commit = _settled(run, "precision"), _settled(run, "commit")
    changes = {"precision": precision} if experiment.model.precision == "auto" and precision else {}
    if commit:
        changes["revision"] = commit
    return experiment.model_copy(update={"model": experiment.model.model_copy(update=changes)}) if changes else experiment


def _settle(run: RunDir, name: str, value: str) -> None:
    """Write it as the run's file of this name, unless another gang was first."""
    mine = run.path / f".{name}.{os.getpid()}"
    write_atomic(mine, value)
    try:
        os.link(mine, run.path / name)
    except FileExistsError:
        pass
    finally:
        mine.unlink()


def _settled(run: RunDir, name: str) -> str:
    path = run.path / name
    return opening.read_text(path) if opening.is_file(path) else ""
