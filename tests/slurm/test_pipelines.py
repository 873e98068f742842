"""A pipeline on a real SLURM: its stages wait for each other in the queue, also while one is requeued, and leave it when one cannot complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.slurm.jobs import job_id
from tests.waiting import until
from workbench import api
from workbench.chaos.lab import Lab
from workbench.rundir.store import State

PIPELINE = """
stages:
  train: [algorithm=sft, data.train={rows}, model.source={model}, algorithm.max_steps=2, algorithm.global_batch_size=4, data.validation_fraction=0,
    validation.samples=0]
  export: [job=export, "job.checkpoint=${{train.checkpoint}}"]
"""


def test_stages_wait_in_the_queue_and_leave_it_with_the_one_that_they_wait_for(
    lab: Lab, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"input": f"What is {i}?", "output": f"It is {i}."}) + "\n" for i in range(8)))
    (tmp_path / "two.yaml").write_text(PIPELINE.format(rows=rows, model=tiny_model))
    item = api.submit_pipeline(str(tmp_path / "two.yaml"), ["backend=slurm", "backend.time_limit='10'", "backend.nodes_timeout_s=60"])
    train, export = (api.get(stage.run) for stage in item.plan.stages.values())
    try:
        until(lambda: "waiting for another job (Dependency)" in export.status.message)
        lab.run("scancel", job_id(train))
        until(lambda: item.status.state.ended)
        assert [stage.state for stage in item.status.stages] == [State.KILLED if train.status.state == State.KILLED else State.STOPPED, State.STOPPED]
        assert export.status.message.startswith(f"SLURM job {job_id(export)} was taken out of the queue: a job that it waited for did not complete")
        assert item.status.stages[1].message.startswith("waits for train, which was ")
        item.resume()
        until(lambda: train.status.state in (State.STARTING, State.RUNNING), run=train)
        lab.run("scontrol", "requeue", job_id(train))
        assert "Dependency" in lab.run("squeue", "-h", "-j", job_id(export), "-o", "%r")
        assert item.wait(400).state == State.COMPLETED, (item.status, train.log_tail("driver"), export.log_tail("driver"))
    finally:
        for run in (export, train):
            if not run.status.state.ended:
                run.kill()
    assert train.status.attempt >= 3 and export.status.attempt == 2
    assert export.spec.job.model_dump()["checkpoint"] == str(train.dir.checkpoints / "2")
    assert (export.dir.path / "export" / "model.safetensors").is_file()
