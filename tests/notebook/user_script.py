"""A user's script: `make lint` has pyright look whether it finds the types of all that is used here. It is not run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import pandas as pd
import plotly.graph_objects as go

import workbench as wb
from workbench.rundir.rollouts import Rollout
from workbench.rundir.store import Status


async def main() -> None:
    experiment = wb.Experiment("ppo_demo", algorithm={"lr": 1e-5}, model={"lora": {"rank": 8}}, name="mine")
    assert_type(experiment.but(seed=1), wb.Experiment)
    assert_type(experiment.algorithm.lr, float)
    assert_type(experiment.command, str)
    run = wb.launch(experiment, once="mine", backend="slurm", num_nodes=4)
    assert_type(run, wb.Run)
    assert_type(run.metrics, pd.DataFrame)
    assert_type(run.held_out, pd.DataFrame)
    assert_type(run.answers, pd.DataFrame)
    assert_type(run.checkpoints, pd.DataFrame)
    assert_type(run.rollouts.where("reward > 0").sort("step"), wb.RolloutTable)
    assert_type(run.rollouts.one(1, 0), Rollout)
    assert_type(run.rollouts.sql("SELECT 1"), pd.DataFrame)
    assert_type(run.live(), wb.LiveRun)
    run.change(lr=1e-6)
    run.pause()
    run.unpause()
    run.stop()
    assert_type(run.wait(60), Status)
    assert_type(await run, Status)
    run.resume(backend={"num_nodes": 2})
    assert_type(run.export("out", check=True), Path)
    assert_type(run.evaluate(data={"validation": "more.jsonl"}), wb.Run)
    assert_type(wb.generate(run, "prompts.jsonl", job={"max_tokens": 8}), wb.Run)
    runs = wb.runs(state="completed", algorithm="ppo")
    assert_type(runs, wb.RunList)
    assert_type(runs[0], wb.Run)
    assert_type(runs[:2], wb.RunList)
    assert_type(wb.compare(runs).curves("loss"), go.Figure)
    assert_type(wb.compare(runs).settings, pd.DataFrame)
    assert_type(wb.attach(run.id), wb.LiveRun)
    assert_type(wb.preflight(experiment).ok, bool)
    assert_type(wb.check_data("rows.jsonl", "preference").bad_rows, pd.DataFrame)
    wb.RunForm()
    wb.Rollouts(run)
    wb.Compare(runs)
    wb.DataPreview("rows.jsonl", "preference")
