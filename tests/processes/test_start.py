"""What only the machine can tell is settled once for a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.engine import device, parallel
from workbench.processes import startup as start
from workbench.rundir import store
from workbench.settings.layout import Layout
from workbench.settings.spec import compose


def test_auto_precision_is_settled_by_the_first_gang_for_all_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = compose(["algorithm=sft", "data=demo", "model.precision=auto"])
    run = store.create(tmp_path, experiment.name, experiment.to_yaml())
    assert start.settled(run, experiment).model.precision == "auto"
    for precision in ("bf16", "fp32"):  # the second gang is on a machine of another kind
        monkeypatch.setattr(device, "native_precision", lambda precision=precision: precision)
        assert start.join(run, experiment, Layout()).model.precision == "bf16"
        parallel.stop()
    asked = compose(["algorithm=sft", "data=demo", "model.precision=fp32"])
    assert start.settled(run, asked).model.precision == "fp32"
    assert not list(run.path.glob(".precision*"))
