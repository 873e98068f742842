"""Jobs on the lab's SLURM, whose ranks run small scripts (`tests.backends.stand_in`), and what is asked of them."""

from __future__ import annotations

import stat
from collections.abc import Callable
from contextlib import suppress

import psutil

from tests.backends import stand_in
from tests.waiting import until
from workbench import api
from workbench.chaos.lab import Lab
from workbench.rundir.store import State

HANG = "time.sleep(300)"
LEARNS = "steps(50, 0.1, keep=5, hold=8)"
ENDLESS = "steps(100_000, 0.05)"


def learnt_as_undisturbed(run: api.Run, attempts: int | None = 2) -> None:
    """The run of LEARNS has ended in so many attempts with the losses of one that is left alone."""
    status = run.wait(400)
    told = status, run.log_tail("driver"), run.log_tail("slurm")
    assert (status.state, status.attempt) == (State.COMPLETED, attempts or status.attempt), told
    losses = {event["step"]: event["metrics"]["loss"] for event in run.events() if event["kind"] == "step"}
    assert [losses[step] for step in sorted(losses)] == stand_in.curve(50)


def processes(run: api.Run, word: str) -> list[psutil.Process]:
    """The run's processes on the nodes with this word in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            if word in (process.info["cmdline"] or ()) and str(run.dir.path) in process.environ().get("WORKBENCH_DASK", ""):
                found.append(process)
    return found


def process(run: api.Run, word: str, **env: str) -> psutil.Process:
    """The one with these values in its environment; a gang's first rank may be far before its last has begun."""

    def seen() -> psutil.Process | None:
        for found in processes(run, word):
            with suppress(psutil.NoSuchProcess):
                if env.items() <= found.environ().items():
                    return found
        return None

    found = until(seen, what=f"{word} of {run.id}")
    assert found is not None
    return found


def job_id(run: api.Run) -> str:
    job = run.status.job
    assert job is not None
    return job["id"]


def complete_two_nodes(start: Callable[..., api.Run], lab: Lab) -> None:
    """A gang of two nodes with two ranks each, from its submission to an empty queue."""
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "GLOO_SOCKET_IFNAME", "SLURMD_NODENAME"]
    run = start(f"print(*(os.environ[name] for name in {names}), flush=True); steps(30)", num_nodes=2, ranks_per_node=2)
    status = run.wait(240)
    assert (status.state, status.step, status.message) == (State.COMPLETED, 30, ""), status
    said = [run.log_tail("actor", rank=rank).split() for rank in range(4)]
    expected = [[str(r), str(r % 2), "4", "2", "10.77.0.11", "eth0", f"node{1 + r // 2}"] for r in range(4)]
    assert said == expected
    for path in run.dir.path.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, (path, oct(mode))
    until(lambda: not lab.run("squeue", "-h"))
