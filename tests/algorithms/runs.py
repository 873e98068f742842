"""Short runs of the tiny models through the local backend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from workbench import api, metrics
from workbench.rundir.store import State

REWARD = "def short(prompt, response, row): return -len(response) / 50\n"


def finished(rows: Sequence[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch, model: Path, *overrides: str) -> api.Run:
    """The completed run on these rows, a fifth of them held out."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (
        f"model.source={model}",
        f"data.train={path}",
        "data.validation_fraction=0.2",
        "algorithm.global_batch_size=8",
        "algorithm.lr=3e-3",
        "algorithm.warmup_steps=2",
        "validation.every_steps=0",
        "validation.sample_tokens=4",
        "backend.threads_per_rank=1",
    )
    run = api.submit(api.compose([*words, *overrides]))
    assert run.wait(240).state == State.COMPLETED, run.status.message
    unknown = {name for each in (*steps(run), *held_out(run)) for name in each if metrics.find(name) is None}
    assert not unknown, f"register them in workbench/metrics.py: {sorted(unknown)}"
    return run


def begun(folder: Path, monkeypatch: pytest.MonkeyPatch, model: Path, *overrides: str) -> api.Run:
    """A run that learns from its own rollouts, by default three steps of eight short answers, rewarded for their brevity."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(folder / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder / "cache"))
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(REWARD)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"What is {i} and {i}?"}) + "\n" for i in range(20)))
    words = (
        f"model.source={model}",
        f"data.train={folder / 'rows.jsonl'}",
        "data.validation_fraction=0.2",
        "algorithm.served=[]",
        "algorithm.global_batch_size=8",
        "algorithm.rollout_batch_size=8",
        "algorithm.max_tokens=12",
        f"algorithm.rewards={{short: {{program: {folder / 'mine.py'}:short}}}}",
        "algorithm.lr=1e-3",
        "algorithm.warmup_steps=2",
        "algorithm.max_steps=3",
        "validation.every_steps=0",
        "backend.threads_per_rank=1",
    )
    return api.submit(api.compose([*words, *overrides]))


def steps(run: api.Run) -> list[dict[str, float]]:
    return [event["metrics"] for event in run.events() if event["kind"] == "step"]


def held_out(run: api.Run) -> list[dict[str, float]]:
    return [event["metrics"] for event in run.events() if event["kind"] == "validation"]


def worker_of(run: api.Run) -> list[psutil.Process]:
    """The run's only rank; without a child that is about to become another program."""
    ending = ["workbench.processes.worker", str(run.dir.path)]
    alike = {p.pid: p for p in psutil.process_iter(["cmdline", "ppid"]) if (p.info["cmdline"] or [])[-2:] == ending}
    return [p for p in alike.values() if p.info["ppid"] not in alike]
