"""A run continues on the data that it was launched with, or on other data where that is asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.command_line import workbench
from workbench import api
from workbench.jobs import inputs, launch, problems
from workbench.rundir import listing, store
from workbench.rundir.store import State


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 4)
    (tmp_path / "maps.py").write_text("def same(row):\n    return row\n")
    return path


@pytest.fixture
def run(data: Path) -> api.Run:
    """One that has failed before its first step."""
    experiment = api.compose(["algorithm=dpo", f"data.train={data}", f"data.map={data.parent / 'maps.py'}:same"])
    made = store.create(listing.runs_root(), "one", experiment.to_yaml())
    inputs.keep(made, experiment)
    made.update(state=State.FAILED, attempt=1)
    return api.Run(made)


def test_changed_data_is_refused_at_once(data: Path, run: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the command line too, with the way out; a new time alone is no change, nor is a file that is as it was again."""
    launched: list[int] = []
    monkeypatch.setattr(launch, "launch", lambda run, task: launched.append(task.attempt))
    before = data.read_text()
    data.write_text(before.replace("b", "x"))
    os.utime(data, ns=(1, 1))
    done = workbench("resume", run.id)
    assert done.returncode == 2
    assert "resume with --changed-data" in done.stderr
    assert f"data.train: {data} has changed since the launch: its content is another one of the same size" in " ".join(done.stderr.split())
    assert (run.status.attempt, launched) == (1, [])
    data.write_text(before)
    os.utime(data, ns=(2, 2))
    run.resume()
    data.write_text(before * 2)
    with pytest.raises(ValueError, match=r"data\.train: .*rows\.jsonl has changed since the launch: it had 192 bytes and has 384"):
        run.resume()
    run.resume(changed_data=True)
    run.resume()
    (data.parent / "maps.py").unlink()
    with pytest.raises(ValueError, match=r"data\.map: .*maps\.py has changed since the launch: it is not there any more"):
        run.resume()
    assert launched == [2, 2, 2]


def test_a_note_that_cannot_be_read_is_a_problem(run: api.Run) -> None:
    path = run.dir.path / inputs.NAME
    path.write_text(json.dumps({"data.train": 3}))
    assert [(each.path, bool(each.remedy)) for each in problems.problems(run.dir)] == [(path, True)]
    with pytest.raises(ValueError, match=r"inputs\.json: not the files' fingerprints: .*delete it"):
        run.resume()
    path.unlink()
    assert not inputs.changed(run.dir)


def test_a_function_that_is_not_there_is_refused_at_the_launch(data: Path) -> None:
    with pytest.raises(api.SpecError, match=r"data\.map: .*maps\.py has no function 'sum'; did you mean 'same'"):
        api.submit(api.compose(["algorithm=dpo", f"data.train={data}", f"data.map={data.parent / 'maps.py'}:sum"]))
    assert not list(listing.runs_root().glob("*"))


def test_a_launch_looks_at_the_columns_and_runs_no_function(data: Path) -> None:
    words = ["algorithm=dpo", f"data.train={data}", "data.columns={prompt: nothing}"]
    (problem,) = api.check_sources(api.compose(words)).problems
    assert problem[0] == "data.train"
    assert "data.columns.prompt: there is no column 'nothing'" in problem[1]
    (data.parent / "maps.py").write_text("raise SystemExit('was run')\ndef same(row): ...\n")
    assert not api.check_sources(api.compose([*words[:2], f"data.map={data.parent / 'maps.py'}:same"])).problems


def test_the_checks_exit_code_is_a_runs(data: Path, tiny_model: Path) -> None:
    words = ("data", "check", str(data), "--model", str(tiny_model))
    assert workbench(*words).returncode == 0
    data.write_text(data.read_text() + "{}\n")
    refused = workbench(*words)
    assert refused.returncode == 1
    assert "a run refuses this" in refused.stdout
    mapped = workbench(
        *words, "--on-bad-row", "skip", "--map", f"{data.parent / 'maps.py'}:same", "--columns", "{chosen: rejected, rejected: chosen}"
    )
    assert mapped.returncode == 0, mapped.stderr
