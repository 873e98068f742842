"""What ranks and the driver say in their logs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workbench.processes import driver
from workbench.processes.log import Log, say
from workbench.rundir import store
from workbench.rundir.events import EventWriter


def test_events_as_lines_and_steps_only_now_and_then() -> None:
    now, lines = 0.0, []
    log = Log(interval_s=2.0, clock=lambda: now, say=lines.append)
    log.event("phase", {"message": "loading the model"})
    for done in range(101):
        log.event("phase", {"message": "reading the data", "done": done, "total": 100})
    log.event("data", {"report": {"rows": 100, "train": 90, "validation": 9, "bad": 1}})
    log.event("state", {"state": "running", "step": 0, "total_steps": 50})
    for step in range(1, 51):
        now += 0.1
        log.event("step", {"step": step, "metrics": {"loss": 0.5, "lr": 1e-4}})
    log.event("validation", {"step": 50, "metrics": {"loss": float("nan")}})
    log.event("checkpoint", {"step": 50, "seconds": 1.25, "bytes": 10})
    log.event("warning", {"message": "slow"})
    log.event("alarm", {"step": 50, "name": "KL blow-up", "message": "61 nats"})
    log.event("reference", {"step": 50})
    log.event("end", {"step": 50, "reason": "completed"})
    assert lines == [
        "loading the model",
        "reading the data (0/100)",
        "reading the data (100/100)",
        "data: 100 rows, 90 to train on, 9 held out, 1 malformed",
        "running from step 0 of 50",
        "step 1: loss 0.5",
        "step 21: loss 0.5",
        "step 41: loss 0.5",
        "step 50: held out: loss nan",
        "step 50: checkpoint saved in 1.2 s",
        "warning: slow",
        "alarm: KL blow-up: 61 nats",
        "completed at step 50",
    ]


def test_a_line_has_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    say("loading the model")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  loading the model\n", capsys.readouterr().out)


def test_the_driver_logs_what_it_polls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = store.create(tmp_path, "one", "{}")
    run.begin_attempt("waiting")
    progress, events = driver.Progress(run), EventWriter(run)
    events.write("phase", message="loading the model")
    events.write("state", state="running", step=0, total_steps=10)
    events.write("step", step=1, metrics={"loss": 0.5})
    events.write("checkpoint", step=1, seconds=0.5, bytes=1)
    progress.poll(1)
    progress.poll(2)
    lines = [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "loading the model",
        "running from step 0 of 10",
        "step 1: loss 0.5",
        "step 1: checkpoint saved in 0.5 s",
        "restarting as attempt 2",
    ]
