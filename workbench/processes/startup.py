"""What every process of a run does first: it reads the settings, joins its gang, and settles what only the machine can tell."""

from __future__ import annotations

import os
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
    if parallel.rank() == 0 and not _settled(run):
        mine = run.path / f".precision.{os.getpid()}"
        write_atomic(mine, device.native_precision())
        try:
            os.link(mine, run.path / "precision")
        except FileExistsError:
            pass  # another gang was first
        finally:
            mine.unlink()
    parallel.from_first(None)
    return settled(run, experiment)


def settled(run: RunDir, experiment: Experiment) -> Experiment:
    """The experiment with the precision that the run began in. Unchanged where none is to be settled, or the run has not begun."""
    precision = _settled(run)
    if experiment.model.precision != "auto" or not precision:
        return experiment
    return experiment.model_copy(update={"model": experiment.model.model_copy(update={"precision": precision})})


def _settled(run: RunDir) -> str:
    path = run.path / "precision"
    return opening.read_text(path) if opening.is_file(path) else ""
