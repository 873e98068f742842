"""The cluster's survey, the preflight and the dry run, against a real SLURM of four nodes with four CPUs and two GPUs each."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backends import stand_in
from tests.command_line import workbench
from tests.jobs.scripts import without_id
from tests.slurm.jobs import ENDLESS, job_id
from tests.waiting import until, until_step
from workbench import api
from workbench.backends import _slurm_nodes
from workbench.chaos.lab import Lab
from workbench.machines.usage import Use
from workbench.rundir.store import State
from workbench.settings.composing import SpecError
from workbench.views import machines as views


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No survey is kept from a test before."""
    monkeypatch.setattr(_slurm_nodes, "MAX_AGE_S", 1.0)
    _slurm_nodes._last.clear()


@pytest.fixture
def words(tmp_path: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Iterator[list[str]]:
    """A small experiment for the lab."""
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 40)
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    yield ["algorithm=dpo", f"data.train={rows}", f"model.source={tiny_model}", "backend=slurm", "algorithm.global_batch_size=4"]
    for run in api.runs():
        if not run.status.state.ended:
            run.kill()
    until(lambda: not lab.run("squeue", "-h"))


@pytest.mark.usefixtures("fresh")
def test_nodes_queue_and_what_each_rank_uses(start: Callable[..., api.Run], lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    run = start(stand_in.BUSY, num_nodes=2, ranks_per_node=2, gpus_per_node=2, exclusive=False)
    waits = start("steps(1)", num_nodes=4, exclusive=True)

    def ranks() -> tuple[Use, ...]:
        return next((each.ranks for each in api.cluster().allocations if each.run_id == run.id), ())

    until(lambda: len(ranks()) == 4 and all(use.cpus > 0.05 for use in ranks()))
    until(lambda: "Resources" in str(views.queue(api.cluster())) and views.queue(api.cluster())[1]["Nodes"] == "node[1-2]")
    found = api.cluster()
    assert (found.survey.backend, found.survey.error) == ("slurm", "")
    assert [(node.name, node.cpus, node.gpus, node.memory_mib, node.usable) for node in found.survey.nodes] == [
        (name, lab.cpus, 2, 8000.0, True) for name in lab.names
    ]
    assert [(node.state.removesuffix(", planned"), node.cpus_used, node.gpus_used) for node in found.survey.nodes] == [("mixed", 2, 2)] * 2 + [
        ("idle", 0, 0)
    ] * 2
    assert [(each.name, each.default, each.up, each.time_limit) for each in found.survey.partitions] == [
        ("main", True, True, "1-00:00:00"),
        ("urgent", False, True, "1-00:00:00"),
    ]
    uses = ranks()
    assert [(use.rank, use.host) for use in uses] == [(0, "node1"), (1, "node1"), (2, "node2"), (3, "node2")]
    assert all(0 < use.cpus <= 1.1 and 200 < use.memory_mib < 600 for use in uses), uses
    queue = {row["Job"]: row for row in views.queue(found)}
    assert (queue[job_id(waits)]["State"], queue[job_id(waits)]["Reason"]) == ("Pending", "Resources")
    assert queue[job_id(run)]["Nodes"] == "node[1-2]"
    shown = workbench("cluster").stdout
    print(shown)
    for word in ("node4", "urgent", "actor 3", run.id):
        assert word in shown, word


@pytest.mark.usefixtures("fresh")
def test_a_node_that_is_down_is_shown_with_its_reason(lab: Lab) -> None:
    lab.run("scontrol", "update", "nodename=node3", "state=drain", "reason=the fan of rack 7")
    try:
        found = next(node for node in api.cluster().survey.nodes if node.name == "node3")
        assert (found.usable, found.reason, views.kind(found)) == (False, "the fan of rack 7", "down")
    finally:
        lab.run("scontrol", "update", "nodename=node3", "state=resume")


@pytest.mark.usefixtures("fresh")
def test_a_dry_run_prints_what_slurm_is_handed(lab: Lab, words: list[str], tmp_path: Path) -> None:
    printed = workbench("run", *words, "--dry-run").stdout
    run = api.submit(api.compose(words))
    kept = lab.run("scontrol", "write", "batch_script", job_id(run), "-")
    run.kill()
    assert without_id(printed).strip() == without_id(kept).strip()
    assert "#SBATCH --nodes=1" in printed


@pytest.mark.usefixtures("fresh", "lab")
def test_a_preflight_names_what_fits_and_when_it_starts(words: list[str], lab: Lab) -> None:
    found = {each.name: each for each in api.preflight(api.compose([*words, "backend.num_nodes=2", "backend.gpus_per_node=2"]))}
    print(*found.values(), sep="\n")
    assert found["nodes"].message == "2 nodes of partition main with 2 GPUs, 1 CPU each: 4 fit, 4 of them idle"
    assert re.fullmatch(r"SLURM expects 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d on node\[1-2\] of main, if it were submitted now", found["start"].message)
    assert not lab.run("squeue", "-h")
    assert not api.runs_root().exists()
    with pytest.raises(
        SpecError, match=r"no node of partition main has 4 GPUs, 4 CPUs: too few GPUs; what fits: backend\.num_nodes=2 backend\.ranks_per_node=2"
    ):
        api.submit(api.compose([*words, "backend.gpus_per_node=4", "backend.ranks_per_node=4"]))
    fits = ["backend.num_nodes=2", "backend.ranks_per_node=2", "backend.gpus_per_node=2", "backend.cpus_per_node=4"]
    assert [each.level for each in api.preflight(api.compose([*words, *fits])) if each.name in ("nodes", "start")] == ["ok", "ok"]
    for setting, told in (("backend.partition=nowhere", "there are: main, urgent"), ("backend.time_limit=9-0", "backend.time_limit=1-00:00:00")):
        with pytest.raises(SpecError, match=told):
            api.submit(api.compose([*words, setting]))


@pytest.mark.usefixtures("fresh", "lab")
def test_a_node_is_tried(words: list[str]) -> None:
    found = {each.name: each for each in api.preflight(api.compose([*words, 'backend.prologue=["export A=1"]']), on_node=True)}
    assert found["on node1"].level == "ok", found
    assert "sees the run folder and the files" in found["on node1"].message
    found = {each.name: each for each in api.preflight(api.compose([*words, "backend.python=/nowhere/python"]), on_node=True)}
    assert found["on a node"].level == "error"
    assert "/nowhere/python" in found["on a node"].message


@pytest.mark.usefixtures("fresh")
def test_a_job_that_vanished_is_told_within_30_s(start: Callable[..., api.Run], lab: Lab) -> None:
    """Its node's plug is pulled, and the controller forgets the job after MinJobAge; this lab has no accounting to ask."""
    run = start(ENDLESS, requeue=False)
    until_step(run, 1)
    node = lab.run("squeue", "-h", "-j", job_id(run), "-o", "%N")
    conf = lab.folder / "slurm.conf"
    before = conf.read_text()
    try:
        conf.write_text(before.replace("MinJobAge=600", "MinJobAge=2"))
        lab.run("scontrol", "reconfigure")
        lab.fail_node(node)
        lab.notice_failed_node(node)
        until(lambda: not lab.run("squeue", "-h", "--states=all"))
        assert run.dir.status.state == State.RUNNING
        began = time.monotonic()
        status = run.wait(30)
        print(f"told after {time.monotonic() - began:.1f} s: {status.message.splitlines()[0]}")
        assert status.state == State.FAILED
        assert status.message.startswith(f"SLURM knows no job {job_id(run)} any more")
    finally:
        conf.write_text(before)
        lab.run("scontrol", "reconfigure")
        lab.repair_node(node)
