"""The facade: finding runs, and what their status says when no driver is there to say it."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from backends import _slurm_queue, slurm
from backends.base import Job, Sight
from tests.backends import stand_in
from workbench import api
from workbench.jobs import launch, observe
from workbench.processes import driver
from workbench.rundir import store
from workbench.rundir.events import EventWriter
from workbench.rundir.store import State

ELSEWHERE = Job("local", "1", "another-host", 0.0)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(root: Path) -> api.Run:
    return api.Run(store.create(root, "one", "{}"))


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_get_by_id_prefix_suffix_and_latest(root: Path) -> None:
    for name in ("20260101-000000-first-aaaa", "20260102-000000-second-bbbb"):
        made = store.create(root, "x", "{}")
        made.path.rename(root / name)
    assert [run.id[-4:] for run in api.runs()] == ["bbbb", "aaaa"]
    for word in ("20260102-000000-second-bbbb", "20260102", "bbbb", "latest"):
        assert api.get(word).id.endswith("bbbb")
    with pytest.raises(ValueError, match=r"2 runs match '2026'.*second-bbbb, 20260101"):
        api.get("2026")
    with pytest.raises(ValueError, match="no runs match 'nope'; the newest are: 20260102"):
        api.get("nope")
    with pytest.raises(ValueError, match="match ''"):
        api.get("")


def test_folders_that_are_no_runs_are_passed_over(root: Path, run: api.Run) -> None:
    (root / "half-made").mkdir()
    (root / "file").touch()
    assert [found.id for found in api.runs()] == [run.id]


def test_interrupted_launch_is_noticed(run: api.Run) -> None:
    run.dir.begin_attempt("waiting")
    assert run.status.state == State.QUEUED
    assert observe.LAUNCH_TIMEOUT_S > slurm.SUBMIT_TIMEOUT_S + 2 * _slurm_queue.COMMAND_TIMEOUT_S  # sbatch may still answer
    for name in ("status.json", ".beat"):
        age(run.dir.path / name, observe.LAUNCH_TIMEOUT_S + 1)
    assert run.status.state == State.FAILED
    assert "launch was interrupted" in run.status.message


def test_driver_on_another_host_is_believed_while_it_gives_signs_of_life(run: api.Run) -> None:
    run.dir.begin_attempt("waiting")
    run.dir.update(state=State.RUNNING, job=asdict(ELSEWHERE))
    age(run.dir.path / "status.json", 3600)
    assert run.status.state == State.RUNNING
    with pytest.raises(ValueError, match="the driver runs on host another-host"):
        run.kill()
    age(run.dir.path / ".beat", 3600)
    assert run.status.state == State.FAILED
    assert "no sign of life from the driver on host another-host" in run.status.message


def test_a_run_in_a_queue_that_cannot_be_seen_from_here_is_left_alone(run: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM does not answer, or this host has no squeue: there is no driver yet that could give a sign of life."""
    run.dir.begin_attempt("waiting")
    run.dir.update(job=asdict(Job("slurm", "7", "login", 0.0)))
    monkeypatch.setattr(slurm, "look", lambda job: Sight(None))
    for name in ("status.json", ".beat"):
        age(run.dir.path / name, 3600)
    assert run.status.state == State.QUEUED
    run.dir.update(state=State.RUNNING)
    age(run.dir.path / "status.json", 3600)
    assert run.status.state == State.FAILED


def test_what_was_seen_of_one_attempt_is_not_said_of_the_next(run: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one viewer waits for the scheduler's word on a dead job, another has seen it too, and resumed the run."""
    run.dir.begin_attempt("waiting")
    run.dir.update(state=State.RUNNING, job=asdict(Job("slurm", "7", "login", 0.0)))

    def look(job: Job) -> Sight:
        run.dir.update(state=State.FAILED)
        run.dir.begin_attempt("waiting")
        run.dir.update(job=asdict(Job("slurm", "8", "login", 0.0)))
        return Sight(False, ended="it is gone")

    monkeypatch.setattr(slurm, "look", look)
    status = run.status
    assert (status.state, status.attempt, status.message) == (State.QUEUED, 2, "waiting")


def test_the_runs_of_others_are_passed_over(root: Path, run: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several users share a folder of runs; root may read everything, so the kernel's answer is played."""
    theirs = store.create(root, "theirs", "{}").path
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: theirs not in Path(path).parents and real(path, mode))
    assert [found.id for found in api.runs()] == [run.id]


def test_an_end_is_never_overwritten(run: api.Run) -> None:
    """A reader that saw a dead driver, and a stop that came too late, leave the driver's last word alone."""
    run.dir.update(state=State.COMPLETED, job=asdict(Job("local", "999999999", socket.gethostname(), 0.0)))
    assert run.status.state == State.COMPLETED
    assert run.dir.move(store.LIVE, state=State.FAILED) is None
    for verb in (run.stop, run.kill, run.resume):
        with pytest.raises(ValueError, match="completed"):
            verb()


def test_killed_in_the_queue_never_starts(run: api.Run) -> None:
    """The driver of a run that was ended before it came up leaves it ended."""
    run.dir.begin_attempt("waiting")
    run.kill()
    assert driver.drive(run.dir, stand_in.task(run.dir, "steps(1)")) == State.STOPPED
    assert run.dir.status.message.startswith("killed")
    assert run.logs() == []


def test_of_two_launches_one_is_refused(run: api.Run) -> None:
    refused: list[str] = []

    def launch_once() -> None:
        try:
            launch.launch(run.dir, stand_in.task(run.dir, "steps(1)"))
        except ValueError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=launch_once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert run.wait(30).state == State.COMPLETED
    assert [path.name for path in run.logs("driver")] == ["driver.1.log"]


def test_wait_gives_up(run: api.Run) -> None:
    with pytest.raises(TimeoutError, match=r"is still created after 0\.1 s"):
        run.wait(0.1)


def test_logs_by_role_and_rank(run: api.Run) -> None:
    for name in ("driver.1", "actor-0.1", "actor-1.1", "actor-10.1", "actor-0.2"):
        (run.dir.logs / f"{name}.log").write_text(f"{name}\n" * 3)
    assert [path.stem for path in run.logs("actor", 0)] == ["actor-0.1", "actor-0.2"]
    assert [path.stem for path in run.logs("actor", 1)] == ["actor-1.1"]
    assert run.log_tail("driver", lines=2) == "driver.1\ndriver.1"
    assert run.log_tail("actor", lines=1, rank=10) == "actor-10.1"
    assert run.log_tail("critic") == ""


def test_the_users_files_are_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").touch()
    spec = api.compose(["data.train=mine.jsonl", "data.validation=org/hub-id"]).with_absolute_paths()
    assert (spec.data.train, spec.data.validation) == (str(tmp_path / "mine.jsonl"), "org/hub-id")
    demo = api.compose(["experiment=dpo_demo"])
    assert demo.with_absolute_paths() == demo


def test_the_users_functions_are_looked_for_before_anything_is_launched(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every one that is not there, at once, with the nearest name; nothing is made. Those that are there are named from the root."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("1 / 0\ndef short(prompt, response, row): ...\ndef gentle(answer): ...\n")
    (tmp_path / "rows.jsonl").touch()
    words = [
        "algorithm=grpo",
        "data.train=rows.jsonl",
        "algorithm.shaping=mine.py:{}",
        "algorithm.rewards={{a: {{program: {}}}, b: {{program: {}}}}}",
    ]

    def composed(shaping: str, *programs: str) -> api.Experiment:
        return api.compose([*words[:2], words[2].format(shaping), words[3].format(*programs)])

    with pytest.raises(api.SpecError) as caught:
        api.submit(composed("gentel", "mine.py:shrt", "maths"))
    told = dict(caught.value.problems)
    assert told.keys() == {"algorithm.rewards.a.program", "algorithm.rewards.b.program", "algorithm.shaping"}
    for (key, what), near in zip(sorted(told.items()), ("short", "math", "gentle"), strict=True):
        assert f"did you mean '{near}'?" in what, key
    assert api.runs() == []
    sound = composed("gentle", "mine.py:short", "math")
    sound.check_files()
    algorithm = sound.with_absolute_paths().algorithm
    assert algorithm.shaping == f"{tmp_path}/mine.py:gentle"  # type: ignore[attr-defined]
    assert [reward.program for reward in algorithm.rewards.values()] == [f"{tmp_path}/mine.py:short", "math"]  # type: ignore[attr-defined]


def test_what_a_run_here_would_not_find_is_told_before_it_is_launched(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also words that are no path at all: too long for one, or below the home of nobody."""
    words = [
        "experiment=ppo_demo",
        f"data.train={tmp_path}/rows.jsonl",
        "data.validation='~nobody-here/rows.jsonl'",
        f"model.source={tmp_path}/model",
    ]
    monkeypatch.setattr("workbench.settings.spec.find_spec", lambda name: None)
    with pytest.raises(api.SpecError) as caught:
        api.submit(api.compose(words))
    told = dict(caught.value.problems)
    assert told.keys() == {"data.train", "data.validation", "model.source", "algorithm.served"}
    assert "pip install" in told["algorithm.served"]
    assert api.runs() == []
    with pytest.raises(api.SpecError, match="File name too long"):
        api.submit(api.compose(["experiment=dpo_demo", f"data.train={'x' * 5000}"]))
    api.compose(["experiment=dpo_demo", f"model.source={'x' * 5000}", "backend.ranks_per_node=2"])
    away = api.compose(["experiment=dpo_demo", f"data.train={tmp_path}/rows.jsonl", "backend=slurm"])
    away.check_files()


def test_progress_writes_the_status_at_most_twice_a_second(run: api.Run) -> None:
    """Ten thousand steps in no time, then a clock that moves on: the last step arrives, with two writes."""
    run.dir.begin_attempt("waiting")
    now = 0.0
    progress = driver.Progress(run.dir, clock=lambda: now)
    writer = EventWriter(run.dir)
    writer.write("state", state="running", step=0, total_steps=10_000)
    progress.poll(1)
    for step in range(1, 10_001):
        writer.write("step", step=step, metrics={})
    written = (run.dir.path / "status.json").stat().st_mtime_ns
    progress.poll(1)
    assert (run.dir.path / "status.json").stat().st_mtime_ns == written
    now = 0.6
    progress.poll(1)
    status = run.dir.status
    assert (status.state, status.step, status.total_steps) == (State.RUNNING, 10_000, 10_000)


def test_a_resumed_step_count_goes_back(run: api.Run) -> None:
    run.dir.begin_attempt("waiting")
    EventWriter(run.dir).write("step", step=9, metrics={})
    progress = driver.Progress(run.dir)
    EventWriter(run.dir).write("state", state="running", step=6, total_steps=10)
    progress.poll(1)
    assert run.dir.status.step == 6
