"""Gangs of real processes on this machine, ended in every way there is. The ranks run small scripts: see stand_in."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.backends import stand_in
from tests.waiting import ended, until, until_step
from workbench import api
from workbench.backends import local
from workbench.backends.base import Job
from workbench.jobs.launch import launch
from workbench.rundir import listing, store
from workbench.rundir.store import State

HANG = "time.sleep(600)"
ENDLESS = "steps(100_000)"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., api.Run]]:
    runs: list[api.Run] = []

    def launch(script: str, **settings: int) -> api.Run:
        runs.append(stand_in.start(tmp_path, script, **settings))
        return runs[-1]

    yield launch
    for run in runs:
        if not run.status.state.ended:
            run.kill()
        until(lambda run=run: not processes(run))


def processes(run: api.Run) -> list[psutil.Process]:
    """Every live process that names the run's folder: its driver and its ranks."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if str(run.dir.path) in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def rank_process(run: api.Run, rank: int) -> psutil.Process:
    """A rank of the gang; the first may be far before the last has begun."""

    def seen() -> psutil.Process | None:
        for process in processes(run):
            with suppress(psutil.NoSuchProcess):
                if process.environ().get("RANK") == str(rank):
                    return process
        return None

    found = until(seen, what=f"rank {rank} of {run.id}")
    assert found is not None
    return found


def test_completes(start: Callable[..., api.Run]) -> None:
    run = start("steps(30)", ranks_per_node=2, num_nodes=2)
    status = run.wait(120)
    assert (status.state, status.step, status.total_steps, status.message) == (State.COMPLETED, 30, 30, "")
    assert sorted(path.name for path in run.logs("actor")) == [f"actor-{rank}.1.log" for rank in range(4)]


def test_what_a_rank_is_told(start: Callable[..., api.Run]) -> None:
    names = [
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "WORKBENCH_STORE",
        "WORKBENCH_ATTEMPT",
        "OMP_NUM_THREADS",
        "GLOO_SOCKET_IFNAME",
    ]
    run = start(f"print(*(os.environ[name] for name in {names}), flush=True); steps(1)", ranks_per_node=1, num_nodes=2)
    assert run.wait(120).state == State.COMPLETED
    told = [run.log_tail("actor", rank=rank).split() for rank in (0, 1)]
    cores = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert [line[:5] for line in told] == [[str(rank), "0", "2", "1", "127.0.0.1"] for rank in (0, 1)]
    assert told[0][5] == told[1][5]
    assert not Path(told[0][5].removeprefix("file:")).parent.exists()
    assert [line[6:] for line in told] == [["1", cores, "lo"]] * 2


def test_everything_listens_on_the_loopback_interface_only(start: Callable[..., api.Run]) -> None:
    run = start("steps(1); " + HANG, num_nodes=2)
    until_step(run, 1)
    job = run.status.job
    assert job is not None
    driver = psutil.Process(int(job["id"]))
    family = [driver, *driver.children(recursive=True)]
    listening = {entry.laddr.ip for process in family for entry in process.net_connections() if entry.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_exit_code_is_told_with_the_end_of_the_log(start: Callable[..., api.Run]) -> None:
    run = start("steps(2); rank == 1 and print('out of luck', flush=True); rank == 1 and sys.exit(3); " + HANG, ranks_per_node=2)
    assert run.wait(120).state == State.FAILED
    assert run.status.message == "rank 1 exited with code 3: out of luck\nout of luck"


def test_last_line_of_a_traceback_is_in_the_reason(start: Callable[..., api.Run]) -> None:
    run = start("steps(1); 1 / 0")
    assert run.wait(120).state == State.FAILED
    first, *log = run.status.message.splitlines()
    assert first == "rank 0 exited with code 1: ZeroDivisionError: division by zero"
    assert log[0].startswith("Traceback")


def test_killed_rank_is_named_and_takes_the_gang_with_it(start: Callable[..., api.Run]) -> None:
    run = start("signal.signal(signal.SIGTERM, signal.SIG_IGN); steps(5); " + HANG, ranks_per_node=2)
    until_step(run, 5)
    rank_process(run, 1).kill()
    assert run.wait(120).state == State.FAILED
    assert run.status.message == "rank 1 was killed by SIGKILL (out of memory?)"


def test_gang_restarts_under_the_next_attempt(start: Callable[..., api.Run]) -> None:
    run = start("attempt == 1 and rank == 1 and os.kill(os.getpid(), 9); steps(5)", ranks_per_node=2, max_restarts=1)
    status = run.wait(120)
    assert (status.state, status.attempt, status.step) == (State.COMPLETED, 2, 5)
    assert {path.name for path in run.logs("actor")} == {f"actor-{rank}.{attempt}.log" for rank in (0, 1) for attempt in (1, 2)}


def test_lost_node_comes_back_and_the_gang_restarts(start: Callable[..., api.Run]) -> None:
    run = start("steps(3); attempt == 1 and time.sleep(600)", num_nodes=2, max_restarts=1)
    until_step(run, 3)
    job = run.status.job
    assert job is not None
    nodes = [each for each in psutil.Process(int(job["id"])).children() if "spawn_main" in " ".join(each.cmdline())]
    assert len(nodes) == 2
    nodes[0].kill()
    status = run.wait(120)
    assert (status.state, status.attempt) == (State.COMPLETED, 2)
    assert re.search(r"the node of rank [01] \(127\.0\.0\.1\) was lost", run.log_tail("driver"))


def test_no_restart_is_left(start: Callable[..., api.Run]) -> None:
    run = start("sys.exit(7)", max_restarts=1)
    status = run.wait(120)
    assert (status.state, status.attempt, status.message) == (State.FAILED, 2, "rank 0 exited with code 7")


def test_leaving_without_an_end_is_a_failure(start: Callable[..., api.Run]) -> None:
    run = start("pass")
    assert run.wait(120).state == State.FAILED
    assert "exited with 0 before the end of the run" in run.status.message


def test_dead_driver_takes_its_ranks_with_it(start: Callable[..., api.Run]) -> None:
    run = start("steps(1); " + HANG, ranks_per_node=2)
    until_step(run, 1)
    ranks = [rank_process(run, rank) for rank in (0, 1)]
    job = run.status.job
    assert job is not None
    os.kill(int(job["id"]), signal.SIGKILL)
    assert run.wait(120).state == State.FAILED
    assert "the driver process died" in run.status.message
    until(lambda: all(map(ended, ranks)))


def test_stop_then_resume_counts_attempts(start: Callable[..., api.Run]) -> None:
    run = start(ENDLESS)
    until_step(run, 3)
    run.stop()
    assert run.status.state in (State.STOPPING, State.STOPPED)
    status = run.wait(120)
    assert status.state == State.STOPPED
    assert 3 <= status.step < 100_000
    with pytest.raises(ValueError, match="has already stopped"):
        run.stop()
    stand_in.again(run, "steps(5)")
    status = run.wait(120)
    assert (status.state, status.attempt, status.step) == (State.COMPLETED, 2, 5)
    with pytest.raises(ValueError, match="only a stopped, killed or failed run"):
        run.resume()


def test_stop_before_the_first_step(start: Callable[..., api.Run]) -> None:
    run = start(HANG)
    run.stop()
    status = run.wait(120)
    assert (status.state, status.message) == (State.STOPPED, "stopped before the first step")


def test_kill_ends_ranks_that_do_not_listen(start: Callable[..., api.Run]) -> None:
    run = start("signal.signal(signal.SIGTERM, signal.SIG_IGN); steps(1); " + HANG, ranks_per_node=2)
    until_step(run, 1)
    run.kill()
    assert run.status.state == State.KILLED
    assert "resume continues" in run.status.message
    until(lambda: not processes(run))


def test_two_runs_at_once(start: Callable[..., api.Run]) -> None:
    runs = [start("steps(20)", ranks_per_node=2) for _ in range(2)]
    assert [run.wait(120).state for run in runs] == [State.COMPLETED] * 2
    assert [run.log_tail("driver", lines=1).split("  ")[1] for run in runs] == ["completed"] * 2


def test_run_outlives_the_terminal_that_launched_it(tmp_path: Path) -> None:
    """A shell in a session of its own launches the run and is killed with its whole session, as a closed terminal does."""
    code = f"from tests.backends.stand_in import start; from pathlib import Path; start(Path({str(tmp_path)!r}), 'steps(150)'); input()"
    shell = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True, cwd=Path(__file__).parents[2])
    until(lambda: any(run.status.job for run in listing.list_runs(tmp_path)))
    run = api.Run(listing.list_runs(tmp_path)[0])
    children = psutil.Process(shell.pid).children(recursive=True)
    os.killpg(shell.pid, signal.SIGHUP)
    os.killpg(shell.pid, signal.SIGKILL)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    shell.wait()
    status = run.wait(120)
    assert (status.state, status.step) == (State.COMPLETED, 150)


def test_odd_names_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "folder" with; $(things)'
    run = stand_in.start(folder, "steps(2)", name='a "name"\nwith $(things)')
    assert run.wait(120).state == State.COMPLETED


def test_a_reused_pid_is_not_the_driver() -> None:
    me = psutil.Process()
    job = Job("local", str(me.pid), os.uname().nodename, me.create_time(), local.mark(me.pid))
    assert local.look(job).alive is True
    assert local.look(replace(job, mark=f"{job.mark}0")).alive is False
    assert local.look(replace(job, mark="", started=job.started - 60)).alive is False
    assert local.look(replace(job, started=job.started - 3600)).alive is True  # the clock was an hour slow when it started
    assert local.look(replace(job, host="elsewhere")).alive is None
    with pytest.raises(ValueError, match="runs on host elsewhere"):
        local.kill(replace(job, host="elsewhere"))


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    run = store.create(tmp_path, "missing", "{}")
    task = replace(stand_in.task(run, ""), driver=("/no/such/program",))
    launch(run, task)
    status = api.Run(run).wait(120)
    assert status.state == State.FAILED
    assert "/no/such/program" in status.message


@pytest.mark.skipif(subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0, reason="no mount namespace may be made here")
def test_full_disk_is_a_clear_failure(tmp_path: Path) -> None:
    """A run on a file system of 1 MiB that fills up while it goes on."""
    fill = "steps(1)\nwith open(run.path / 'fill', 'wb') as file:\n    while True: file.write(bytes(4096)); file.flush()"
    code = f"""
from pathlib import Path
from tests.backends.stand_in import start
status = start(Path({str(tmp_path)!r}), {fill!r}).wait(120)
print(status.state, status.message)
"""
    script = f"mount -t tmpfs -o size=1m tmpfs {shlex.quote(str(tmp_path))} && exec {sys.executable} -c {shlex.quote(code)}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.stdout.startswith("failed the disk of"), done
    assert "is full" in done.stdout
    assert "make room, then resume the run" in done.stdout
