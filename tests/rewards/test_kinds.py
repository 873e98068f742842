"""A kind of reward is one file: here one whose scores come with a file that somebody writes, in a copy of the package that gets nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import models
from tests.extend import extended, warm, workbench
from tests.waiting import until
from workbench.rundir import beats, rollouts
from workbench.rundir.store import RunDir

KIND = '''"""Scores that somebody writes into a file: one number a line, or "unknown"."""

from pathlib import Path

from workbench.rewards.base import Scores, Waiting

Config = str
EACH = False


def problems(config, samples_per_prompt):
    return []


def with_absolute_paths(config, absolute):
    return config


def needs(config):
    return ()


def scorer(name, config, given):
    def score(answers):
        if not Path(config).exists():
            return Waiting(f"the labels of {len(answers)} answers in {Path(config).name}")
        given = Path(config).read_text().split()
        return Scores([None if each == "unknown" else float(each) for each in given[: len(answers)]])

    return score
'''


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project with one kind more. What a test starts in it ends with the test."""
    made = extended(tmp_path, {"workbench/rewards/kinds/written.py": KIND})
    with warm(made):
        yield made
        for run in (made / "runs").glob("*"):
            workbench(made, "kill", run.name)


def command(folder: Path, *words: str) -> None:
    done = workbench(folder, *words)
    assert done.returncode == 0, done.stdout + done.stderr


def launched(folder: Path) -> RunDir:
    model = models.save(folder / "model", tie_word_embeddings=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"What is {i} and {i}?"}) + "\n" for i in range(20)))
    words = (
        "algorithm=grpo",
        f"model.source={model}",
        f"data.train={folder / 'rows.jsonl'}",
        "data.validation_fraction=0",
        "algorithm.samples_per_prompt=4",
        "algorithm.global_batch_size=8",
        "algorithm.rollout_batch_size=8",
        "algorithm.max_tokens=8",
        "algorithm.max_steps=2",
        f"algorithm.rewards={{liked: {{written: '{folder / 'labels.txt'}'}}, brief: {{program: brevity, weight: 0}}}}",
        "backend.threads_per_rank=1",
    )
    command(folder, "run", "--detach", *words)
    (run,) = (folder / "runs").glob("*")
    return RunDir(run)


def waits(run: RunDir) -> list[dict[str, Any]]:
    return [event for event in run.events() if event["kind"] == "phase" and event["message"].startswith("waiting for")]


def test_a_kind_that_waits_for_somebody(folder: Path) -> None:
    """The run says what it waits for, stops on request, goes on after a resume, and learns from the known labels alone."""
    run = launched(folder)
    until(lambda: waits(run), run=run)
    assert waits(run)[0]["message"] == "waiting for the labels of 8 answers in labels.txt"
    until(lambda: run.status.message.startswith("waiting for"), run=run)
    until(lambda: any(beat.phase == "waiting" for beat in beats.read(run)), run=run)
    assert not [event for role in ("actor", "driver") for event in run.events(role=role) if event["kind"] == "alarm"]
    command(folder, "stop", run.path.name)
    until(lambda: run.status.state.ended)
    assert run.status.state == "stopped"
    assert not run.status.step
    command(folder, "resume", "--detach", run.path.name)
    until(lambda: len(waits(run)) >= 2, run=run)
    (folder / "labels.txt").write_text("1 0 unknown 0.5 1 unknown unknown unknown")
    until(lambda: run.status.state.ended)
    assert run.status.state == "completed", run.status
    first, second = [event["metrics"] for event in run.events() if event["kind"] == "step"]
    for metrics in (first, second):
        assert metrics["rewards"] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
        assert metrics["rewards_unknown"] == 0.5
    kept = rollouts.of_step(run, 1)
    assert kept.reward.isna().tolist() == [False, False, True, False, False, True, True, True]
    taught = [any(one["advantages"]) for number in range(8) if (one := rollouts.one(run, 1, number))]
    # The first prompt's known answers are worth 1, 0 and 0.5 against a mean of 0.5; the second has only one, which is compared with nothing.
    assert taught == [True, True, False, False, False, False, False, False]
    assert run.spec_path.read_text().count("written:") == 1
