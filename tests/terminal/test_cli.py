"""The command line, as a shell sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import command_line
from tests.app import synthetic
from tests.backends import stand_in
from workbench.rundir.events import EventWriter
from workbench.rundir.store import State

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def workbench(runs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return command_line.workbench(*words, WORKBENCH_RUNS=str(runs))


def test_help_of_every_command(runs: Path) -> None:
    for words in ([], *([name] for name in ("run", "list", "show", "logs", "stop", "kill", "resume", "export", "data", "doctor", "bench"))):
        done = workbench(runs, *words, "--help")
        assert done.returncode == 0
        assert "Usage" in done.stdout


def test_the_module_is_the_command(runs: Path) -> None:
    """In a process of its own: what is printed, and what the user got wrong."""
    env = {**os.environ, "WORKBENCH_RUNS": str(runs), "COLUMNS": "200"}
    for words in (("list",), ("show", "latest")):
        command = [sys.executable, "-m", "workbench.terminal.cli", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
        here = workbench(runs, *words)
        assert (done.returncode, done.stdout, done.stderr) == (here.returncode, here.stdout, here.stderr)


def test_dry_run_prints_the_resolved_settings(runs: Path) -> None:
    done = workbench(runs, "run", "experiment=dpo_demo", "algorithm.beta=0.3", "--dry-run")
    assert done.returncode == 0
    assert "beta: 0.3" in done.stdout
    assert not runs.exists()


def test_what_the_user_got_wrong_is_told_without_a_traceback(runs: Path) -> None:
    for words, told in (
        (("run", "algorithm.bta=1"), "did you mean 'beta'?"),
        (("run", "algorithm=grpo", "data.train=x", "algorithm.rewards={a: {program: maths}}"), "did you mean 'math'?"),
        (("run", "--dry-run", "algorithm=ppo", "data.train=x", "algorithm.rewards={a: {program: math}}", "algorithm.shaping=x.py:y"), "no file x.py"),
        (("show", "latest"), "there are no runs in"),
        (("run", "experiment=dpo_demo", "data.train=nope.jsonl"), "data.train: there is no file nope.jsonl"),
        (("list", "--state", "runing"), "'running'"),
        (("data", "check", "nope.jsonl"), "there is no file nope.jsonl"),
        (("export", "latest", "--out", "x"), "there are no runs in"),
    ):
        done = workbench(runs, *words)
        assert done.returncode == 2, done
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def follow(runs: Path) -> subprocess.Popen[str]:
    """What `run`, `resume` do after the launch, in a process of its own."""
    code = "import typer; from workbench import api; from workbench.terminal.follow import follow; typer.run(lambda: follow(api.get('latest')))"
    env = {**os.environ, "WORKBENCH_RUNS": str(runs), "COLUMNS": "200"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT)


def test_following_a_run_that_fails_exits_1_with_the_reason_and_the_log(runs: Path) -> None:
    stand_in.start(runs, "steps(3); print('[red]markup[/]', flush=True); 1 / 0")
    process = follow(runs)
    told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "rank 0 exited with code 1: ZeroDivisionError" in told[1]
    assert "[red]markup[/]" in told[1]


def test_interrupting_the_follower_leaves_the_run_and_says_how_to_go_on(runs: Path) -> None:
    run = stand_in.start(runs, "steps(100_000)")
    EventWriter(run.dir, "driver").write("warning", message="the follower is there")
    process = follow(runs)
    assert process.stdout is not None
    assert "the follower is there" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert f"workbench stop {run.id}" in told[1]
    assert not run.status.state.ended
    assert workbench(runs, "stop", "latest", "--wait").stdout.strip() == f"{run.id} is stopped"
    assert workbench(runs, "stop", "latest").returncode == 2


def test_a_pause_leaves_the_bar_as_it_is(runs: Path) -> None:
    run = synthetic.make(runs, "dpo-demo", 20, 200)
    for message in ("paused at step 20", ""):
        EventWriter(run).write("phase", message=message)
    run.update(state=State.STOPPED, step=20, total_steps=200)
    shown = follow(runs).communicate(timeout=120)[0]
    assert "training" in shown
    assert "20/200" in shown


def test_logs_of_a_rank_and_of_the_driver(runs: Path) -> None:
    stand_in.start(runs, "print('rank', rank, flush=True); steps(1)", ranks_per_node=2)
    said = [line.partition("  ")[2] for line in workbench(runs, "logs", "-f", "latest", "--role", "driver").stdout.splitlines()]
    assert said[-2:] == ["completed at step 1", "completed"]
    assert workbench(runs, "logs", "latest", "--rank", "1").stdout == "rank 1\n"
    assert "actor-0.1.log" in workbench(runs, "logs", "latest", "--rank", "9").stderr


def test_list_and_show(runs: Path) -> None:
    assert "There are no runs" in workbench(runs, "list").stdout
    run = synthetic.make(runs, "dpo-demo", 20, 200)
    (listed,) = json.loads(workbench(runs, "list", "--json").stdout)
    assert (listed["id"], listed["algorithm"]) == (run.id, "dpo")
    shown = json.loads(workbench(runs, "show", "latest", "--json").stdout)
    assert shown["metrics"]["loss"] > 0
    assert shown["spec"]["name"] == listed["name"]
    assert run.id in workbench(runs, "show", run.id[-4:]).stdout


def test_data_check(runs: Path, tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{\n')
    report = json.loads(workbench(runs, "data", "check", str(path), "--model", str(tiny_model), "--json").stdout)
    assert (report["rows"], report["bad"]) == (1, 1)
    page = json.loads(workbench(runs, "data", "check", str(path), "--model", str(tiny_model), "--rows", "0:5", "--json").stdout)
    assert page["rows"][0]["chosen"] == [{"text": "b<|im_end|>", "role": "assistant", "learnt": True}]
    assert f"{path}:2" in workbench(runs, "data", "check", str(path), "--model", str(tiny_model)).stdout.replace("\n", "")


def test_doctor(runs: Path) -> None:
    parts = {part["name"]: part for part in json.loads(workbench(runs, "doctor", "--json").stdout)}
    assert parts["torch"]["found"].startswith("2.13.0")
    assert parts["Chromium"]["found"]
    assert all(part["found"] or (part["enables"] and part["install"]) for part in parts.values())
