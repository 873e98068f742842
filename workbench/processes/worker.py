"""A rank of a run: `python -m workbench.processes.worker RUN_DIR`. What it does is its kind of job's: see `workbench/processes/kinds/`."""

from __future__ import annotations

import sys
from pathlib import Path

from workbench.processes import startup
from workbench.rundir import beats
from workbench.rundir.store import RunDir
from workbench.settings import stored
from workbench.settings.modules import find_job


def main() -> int:
    run = RunDir(Path(sys.argv[1]))
    beats.begin(run, "actor")
    experiment = stored.experiment(run)
    experiment = startup.join(run, experiment, experiment.model.layout)
    from workbench.engine import parallel
    from workbench.processes.rank import Rank

    find_job(experiment.job.name).work(Rank(run, experiment))
    parallel.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
