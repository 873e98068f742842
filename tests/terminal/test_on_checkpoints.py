"""`workbench evaluate` and `workbench generate`, as a shell sees them, on a tiny model; and what `list` and `show` tell of such runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import command_line
from tests.app import synthetic, synthetic_jobs

ROWS = [{"prompt": f"What is {i} and {i}?", "chosen": f"It is {2 * i}.", "rejected": "No."} for i in range(24)]


def workbench(folder: Path, *words: str) -> str:
    done = command_line.workbench(*words, WORKBENCH_RUNS=str(folder / "runs"), WORKBENCH_CACHE=str(folder / "cache"), COLUMNS="220")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", ["evaluate", "generate"])
def test_help(tmp_path: Path, command: str) -> None:
    assert "--detach" in workbench(tmp_path, command, "--help")


def test_a_checkpoint_is_evaluated_and_answers(tmp_path: Path, tiny_model: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = (
        f"model.source={tiny_model}",
        f"data.train={data}",
        "algorithm.max_steps=2",
        "algorithm.global_batch_size=4",
        "backend.threads_per_rank=1",
    )
    trained = json.loads(workbench(tmp_path, "run", "algorithm=dpo", "name=mine", *words, "checkpoint.every_steps=1", "--json"))["id"]

    lines = workbench(tmp_path, "generate", f"{trained}:2", str(data), "job.max_tokens=4", "backend.threads_per_rank=1").splitlines()
    assert lines[-1].endswith("/answers.jsonl")
    assert len(Path(lines[-1]).read_text().splitlines()) == 24

    told = json.loads(workbench(tmp_path, "evaluate", trained, "validation.samples=1", "--step", "1", "--json"))
    assert (told["job"], told["state"], told["step"]) == ("evaluate", "completed", 1)
    assert set(told["validation"]) >= {"loss", "accuracy"}


def test_list_and_show(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    trained = synthetic.make(runs, steps=60)
    answered, measured = synthetic_jobs.generate(runs), synthetic_jobs.evaluate(runs, trained)
    listed = workbench(tmp_path, "list")
    assert all(word in listed for word in (" dpo ", " generate ", " evaluate · dpo "))
    assert f"answers: {answered.path / 'answers.jsonl'}" in workbench(tmp_path, "show", answered.id)
    shown = workbench(tmp_path, "show", measured.id)
    assert "held out" in shown
    assert "last step" not in shown
    assert "accuracy" in shown
    assert json.loads(workbench(tmp_path, "show", measured.id, "--json"))["job"] == "evaluate"
