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

    Raises as `workbench.engine.hf.local_directory` does.
    """
    from workbench.engine import hf

    experiment = settled(run, experiment)
    source = experiment.model.source
    directory = hf.local_directory(source, experiment.model.revision)
    commit = hf.commit_of(source, directory)
    if commit is None:
        return directory, experiment
    if not _settled(run, "commit"):
        _settle(run, "commit", commit)
    experiment = settled(run, experiment)
    return (directory if experiment.model.revision == commit else hf.local_directory(source, experiment.model.revision)), experiment


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
