"""Notebook 05 on the real SLURM: what it says of the numbers there and here is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import workbench as wb
from tests.notebook.executed import executed
from workbench.chaos.lab import MAIN
from workbench.chaos.scenarios import Stage


def test_05_to_the_cluster(stage: Stage, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(stage.cache))
    done = executed("05", tmp_path, {"MODEL": str(tiny_model), "STEPS": 2, "PARTITION": MAIN, "NODES": 2})
    run, here = (next(run for run in wb.runs() if run.once == once) for once in ("to the cluster", "to the cluster: at home"))
    assert (run.spec.backend.name, run.spec.backend.num_nodes) == ("slurm", 2)
    assert here.spec.backend.name == "local"
    assert "#SBATCH" in done.text("api.script") and f"-p {MAIN}" in done.text("api.script")
    assert "completed" in done.text("run.wait().state")
    rows = [line.split() for line in done.text("wb.compare").splitlines() if re.match(r"\d+ +\d", line)]
    assert [row[0] for row in rows] == ["1", "2"] and all(abs(float(row[1]) - float(row[2])) < 0.002 for row in rows)
    assert "<svg" in done.picture("run.live()")
