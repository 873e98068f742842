"""Jobs on a real SLURM of four nodes, from sbatch to their end. The ranks run small scripts: see tests/backends/stand_in."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.backends import stand_in
from tests.slurm.jobs import ENDLESS, HANG, LEARNS, complete_two_nodes, job_id, learnt_as_undisturbed, process, processes
from tests.trust.sockets import KNOCK, REFUSED, listening
from tests.waiting import ended, until, until_step
from workbench import api
from workbench.chaos.lab import URGENT, Lab
from workbench.rundir.store import State


def test_a_gang_of_two_nodes(start: Callable[..., api.Run], lab: Lab) -> None:
    complete_two_nodes(start, lab)


JOIN = """
from workbench.engine import parallel
parallel.start()
print("met", *parallel.gather_over_all(rank), os.environ["WORKBENCH_STORE"], flush=True)
"""


def test_a_neighbour_gets_nothing_of_what_a_run_of_two_nodes_listens_on(start: Callable[..., api.Run], lab: Lab) -> None:
    """Scheduler, workers and the gang's store want the run's certificate, on the interface's address alone; gloo's ports answer nobody."""
    run = start(JOIN + ENDLESS, num_nodes=2)
    until_step(run, 1)
    met = [run.log_tail("actor", rank=rank).split() for rank in (0, 1)]
    assert met[0][:3] == met[1][:3] == ["met", "0", "1"] and met[0][3].startswith("tls://10.77.0.11:"), met
    everything = [*processes(run, str(run.dir.path)), *processes(run, "distributed.cli.dask_worker")]
    assert len(everything) == 5
    ranks = {process.pid for process in everything if "RANK" in process.environ()}
    places = listening(everything)
    assert {host for host, _ in places} == {"10.77.0.11", "10.77.0.12"}
    assert sum(process.pid not in ranks for process in places.values()) == 4, places  # the scheduler, two workers and the store
    words = ["nsenter", "--net=/run/netns/wblab-node4", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/env", "python3"]
    done = subprocess.run(
        [*words, "-c", KNOCK, json.dumps(sorted(places))], input="", capture_output=True, text=True, check=True, timeout=120, cwd="/"
    )
    *lines, last = done.stdout.splitlines()
    assert last == "done" and len(lines) == len(places)
    for (host, port), line in zip(sorted(places), lines, strict=True):
        answers = set(json.loads(line)[1].values())
        if places[host, port].pid in ranks:
            assert answers == {"TimeoutError"}, (host, port, answers)
        else:
            assert all(answer in REFUSED or answer.startswith("\x15\x03") for answer in answers), (host, port, answers)
    run.stop()
    assert run.wait(240).state == State.STOPPED


def test_what_sbatch_refuses_is_told_at_once(start: Callable[..., api.Run]) -> None:
    with pytest.raises(OSError, match="invalid partition specified: nowhere"):
        start("steps(1)", partition="nowhere")
    with pytest.raises(OSError, match="Requested time limit is invalid"):
        start("steps(1)", time_limit="9-0")


def test_a_waiting_job_says_why_and_can_be_withdrawn(start: Callable[..., api.Run]) -> None:
    first = start(ENDLESS, num_nodes=3)
    until_step(first, 1)
    second = start("steps(1)", num_nodes=3)
    until(lambda: "waiting for nodes (Resources)" in second.status.message)
    assert second.status.state == State.QUEUED
    until(lambda: "expected to start 20" in second.status.message)
    second.stop()
    assert second.status.state == State.STOPPED
    first.stop()
    assert first.wait(240).state == State.STOPPED


def test_two_gangs_that_want_the_same_nodes_take_turns(start: Callable[..., api.Run]) -> None:
    """Each wants three of four nodes: as one-node jobs they would deadlock."""
    runs = [start("steps(20)", num_nodes=3) for _ in range(2)]
    assert [run.wait(240).state for run in runs] == [State.COMPLETED] * 2


def test_servers_with_resources_of_their_own_make_a_heterogeneous_job(start: Callable[..., api.Run], lab: Lab) -> None:
    run = start(ENDLESS, num_nodes=2, critic={"nodes": 1, "partition": URGENT, "cpus_per_node": 2})
    until_step(run, 1)
    components = lab.run("squeue", "-h", "-j", job_id(run), "-o", "%i %P %D %C").splitlines()
    assert sorted(components) == [f"{job_id(run)}+0 main 2 8", f"{job_id(run)}+1 urgent 1 4"]  # exclusive: all of a node's CPUs
    workers = until(lambda: len(found := processes(run, "distributed.cli.dask_worker")) == 3 and found)
    assert sorted(worker.cmdline()[worker.cmdline().index("--name") + 1] for worker in workers) == ["actor-00000", "actor-00001", "critic-00000"]
    assert len({worker.environ()["SLURMD_NODENAME"] for worker in workers}) == 3
    run.stop()
    status = run.wait(240)
    assert (status.state, status.attempt) == (State.STOPPED, 1), status


@pytest.mark.slow
def test_a_heterogeneous_job_is_queued_again_after_its_time_limit_or_a_lost_node(start: Callable[..., api.Run], lab: Lab) -> None:
    run = start("steps(50, 0.1 if attempt > 1 else 1.0, keep=5)", time_limit="1", warn_s=45, critic={"nodes": 1, "partition": URGENT})
    learnt_as_undisturbed(run)
    run = start("steps(50, 0.1 if attempt > 1 else 0.5, keep=5)", num_nodes=2, critic={"nodes": 1, "cpus_per_node": 2})
    until_step(run, 8)
    with lost(lab, "node3"):
        run.wait(120)
        learnt_as_undisturbed(run, run.status.attempt)  # the gang may have begun again while SLURM ended it node by node


@pytest.mark.slow
def test_a_heterogeneous_job_can_be_killed(start: Callable[..., api.Run], lab: Lab) -> None:
    run = start("signal.signal(signal.SIGTERM, signal.SIG_IGN); steps(1); " + HANG, num_nodes=2, critic={"nodes": 1, "cpus_per_node": 2})
    until_step(run, 1)
    run.kill()
    assert run.status.state == State.KILLED
    until(lambda: not processes(run, str(run.dir.path)) and not lab.run("squeue", "-h"), 30)


def test_no_shell_reads_a_path_or_a_name(start: Callable[..., api.Run], tmp_path: Path) -> None:
    odd = 'it\'s a "folder"\n#SBATCH --nodes=9\n$(touch wb-owned) `touch wb-owned`; & | > x 100%j \\ -rf * ü→ '
    folder = tmp_path / odd
    folder.mkdir()
    run = start("steps(1)", folder, odd)
    assert run.wait(240).state == State.COMPLETED, (run.status, run.log_tail("slurm"))
    assert sorted(path.name for path in run.dir.logs.iterdir()) == ["actor-0.1.log", "driver.1.log", f"slurm.{job_id(run)}.0.log"]
    assert not Path("wb-owned").exists()


def test_a_killed_rank_restarts_the_gang(start: Callable[..., api.Run]) -> None:
    run = start(LEARNS, num_nodes=2, ranks_per_node=2)
    until_step(run, 8)
    process(run, str(run.dir.path), RANK="3").kill()
    learnt_as_undisturbed(run)
    assert "attempt 1: rank 3 was killed by SIGKILL" in run.log_tail("driver")
    assert {path.name for path in run.logs("actor", 0)} == {"actor-0.1.log", "actor-0.2.log"}


def test_a_killed_dask_worker_comes_back(start: Callable[..., api.Run]) -> None:
    run = start(LEARNS, num_nodes=2)
    until_step(run, 8)
    process(run, "distributed.cli.dask_worker", SLURM_PROCID="1").kill()
    learnt_as_undisturbed(run)
    assert "the node of rank 1 (10.77.0.12) was lost" in run.log_tail("driver")


def test_a_killed_driver_is_started_again_and_its_ranks_end_with_it(start: Callable[..., api.Run]) -> None:
    run = start(LEARNS, num_nodes=2)
    until_step(run, 8)
    ranks = until(lambda: len(found := processes(run, str(run.dir.path))) == 3 and found)
    processes(run, stand_in.__name__)[0].kill()
    killed = time.monotonic()
    until(lambda: all(map(ended, ranks)))
    print(f"the ranks ended {time.monotonic() - killed:.1f} s after the driver")
    learnt_as_undisturbed(run)


def test_a_cancelled_job_is_marked_and_can_be_resumed(start: Callable[..., api.Run], lab: Lab) -> None:
    run = start(LEARNS, num_nodes=2)
    until_step(run, 8)
    lab.run("scancel", job_id(run))
    status = run.wait(240)
    assert (status.state, status.message.partition(";")[0]) == (State.KILLED, f"SLURM job {job_id(run)} was cancelled (scancel)")
    stand_in.again(run, LEARNS, backend="slurm", num_nodes=1)
    learnt_as_undisturbed(run, run.status.attempt)  # the gang may have begun again while SLURM ended it node by node


def test_a_kill_leaves_nothing(start: Callable[..., api.Run], lab: Lab) -> None:
    run = start("signal.signal(signal.SIGTERM, signal.SIG_IGN); steps(1); " + HANG, num_nodes=2)
    until_step(run, 1)
    run.kill()
    assert run.status.state == State.KILLED
    until(lambda: not processes(run, str(run.dir.path)) and not lab.run("squeue", "-h"))


def test_a_preempted_run_goes_on_when_the_nodes_are_free(start: Callable[..., api.Run]) -> None:
    """A job of the urgent partition takes all nodes: the run is warned, saves, is queued again, and goes on under its next attempt."""
    run = start(LEARNS, num_nodes=2)
    until_step(run, 8)
    urgent = start("steps(20, 0.1)", num_nodes=4, partition=URGENT)
    until(lambda: run.status.state == State.QUEUED)
    assert run.status.attempt == 1
    assert urgent.wait(240).state == State.COMPLETED
    learnt_as_undisturbed(run)
    assert "before the allocation ends" in run.log_tail("driver", 1000) + (run.dir.logs / "driver.1.log").read_text()


def test_a_run_goes_on_after_its_time_limit(start: Callable[..., api.Run]) -> None:
    """The first attempt would be under way for ever. The warning comes after half a minute, or sooner: SLURM does not promise more."""
    run = start(LEARNS, time_limit="1", warn_s=30)
    learnt_as_undisturbed(run, attempts=None)
    assert run.status.attempt >= 2


def test_a_spare_node_takes_over(start: Callable[..., api.Run], lab: Lab) -> None:
    run = start(LEARNS, num_nodes=2, spare_nodes=1)
    until_step(run, 8)
    working = process(run, str(run.dir.path), RANK="1")  # on whichever came first, node2 or node3
    with lost(lab, working.environ()["SLURMD_NODENAME"]):
        learnt_as_undisturbed(run)


@pytest.mark.parametrize(("node", "spare_nodes"), [("node2", 0), pytest.param("node1", 0, marks=pytest.mark.slow), ("node1", 1)])
def test_the_job_is_queued_again_without_a_spare_and_where_the_drivers_node_is_lost(
    start: Callable[..., api.Run], lab: Lab, node: str, spare_nodes: int
) -> None:
    run = start(LEARNS, num_nodes=2, spare_nodes=spare_nodes)
    until_step(run, 8)
    with lost(lab, node):
        learnt_as_undisturbed(run)


def test_a_full_disk_is_named_and_a_resume_goes_on(start: Callable[..., api.Run], lab: Lab) -> None:
    run = start("steps(50, 0.1 if attempt > 1 else 1.0, keep=5)", lab.small / "runs", num_nodes=2)
    until_step(run, 8)
    fill = lab.small / "fill"
    with suppress(OSError), fill.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass
    status = run.wait(240)
    assert (status.state, status.message.partition(" (")[0]) == (State.FAILED, f"the disk of {run.dir.path} is full"), status
    fill.unlink()
    stand_in.again(run, LEARNS, backend="slurm", num_nodes=2)
    learnt_as_undisturbed(run)


@contextmanager
def lost(lab: Lab, node: str) -> Iterator[None]:
    """Meanwhile the node is without power, and SLURM knows."""
    lab.fail_node(node)
    lab.notice_failed_node(node)
    try:
        yield
    finally:
        lab.repair_node(node)
