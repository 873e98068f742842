"""Checks before the launch, and the script that a dry run prints, with stand-ins for SLURM's commands (tests/slurm has the real ones)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.backends.slurm_commands import PARTITION, Commands, node
from tests.command_line import workbench
from tests.jobs.scripts import without_id
from workbench import api
from workbench.jobs import preflight
from workbench.rundir.store import State
from workbench.settings.composing import SpecError


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A small experiment for a cluster, in a runs folder of its own."""
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 40)
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path))
    return ["algorithm=dpo", f"data.train={rows}", "backend=slurm", "backend.partition=h100", "algorithm.global_batch_size=8"]


@pytest.fixture
def cluster(commands: Commands, tmp_path: Path) -> Path:
    """SLURM's commands, for a partition of two nodes with eight GPUs; sbatch keeps what it is handed."""
    commands("scontrol", "")
    nodes, partition = node("n1") + node("n2"), PARTITION.format(name="h100", default="YES", limit="1-00:00:00", state="UP")
    (tmp_path / "node.out").write_text(nodes)
    (tmp_path / "partition.out").write_text(partition)
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\nfor what; do :; done\ncat {tmp_path}/$what.out\n")
    commands("squeue", "")
    commands("srun", "--overlap")
    told = "sbatch: Job 7 to start at 2026-11-25T21:30:00 using 8 processors on nodes n1 in partition h100"
    (tmp_path / "sbatch").write_text(
        f"""#!/bin/sh
case $1 in
--version) echo slurm 22.05.8 ;;
--test-only) echo {told} >&2; cp "$2" {tmp_path}/tested.sh ;;
--parsable) cp "$2" {tmp_path}/submitted.sh; echo 7 ;;
esac
"""
    )
    (tmp_path / "sbatch").chmod(0o700)
    return tmp_path


def test_a_dry_run_prints_the_script_that_is_submitted(cluster: Path, words: list[str]) -> None:
    printed = workbench("run", *words, "--dry-run")
    assert not (cluster / "runs").exists()
    assert "global_batch_size: 8" in printed.stderr
    assert workbench("run", *words, "--detach").returncode == 0
    submitted = (cluster / "submitted.sh").read_text()
    assert without_id(printed.stdout) == without_id(submitted)
    assert "#SBATCH -p h100\n" in submitted
    (run,) = api.runs()
    assert (run.dir.path / "job.1.sh").read_text() == submitted
    api.preflight(api.compose(words))
    assert without_id((cluster / "tested.sh").read_text()) == without_id(submitted)


def test_a_preflight_tells_of_nodes_files_and_start(cluster: Path, words: list[str]) -> None:
    found = {each.name: each for each in api.preflight(api.compose([*words, "backend.gpus_per_node=8", "backend.ranks_per_node=8"]))}
    assert found["nodes"].message == "1 node of partition h100 with 8 GPUs, 8 CPUs: 2 fit, 2 of them idle"
    assert found["start"].message == "SLURM expects 2026-11-25 21:30:00 on n1 of h100, if it were submitted now"
    assert found["SLURM"].message == "22.05.8; srun has --overlap"
    assert found["training data"].level == "warning"
    assert "each node has one of its own there" in found["training data"].message
    assert not (cluster / "runs").exists()


def test_what_no_node_can_run_is_refused_before_a_run_is_made(cluster: Path, words: list[str]) -> None:
    with pytest.raises(SpecError, match=r"backend\.gpus_per_node: nodes: no node of partition h100 has 16 GPUs.*backend\.num_nodes=2"):
        api.submit(api.compose([*words, "backend.gpus_per_node=16", "backend.ranks_per_node=16", "algorithm.global_batch_size=16"]))
    assert not (cluster / "runs").exists()
    assert not (cluster / "submitted.sh").exists()


def test_warnings_are_kept_with_the_run(cluster: Path, words: list[str]) -> None:
    run = api.submit(api.compose(words))
    told = [event["message"] for event in run.dir.events(role="driver") if event["kind"] == "warning"]
    assert any(message.startswith("training data: ") and "each node has one of its own" in message for message in told)
    assert run.status.state in (State.QUEUED, State.FAILED)


def test_a_resume_that_no_node_can_run_is_refused_and_changes_nothing(cluster: Path, words: list[str]) -> None:
    run = api.submit(api.compose(words))
    assert run.wait(240).state == State.FAILED  # the queue does not list its job
    with pytest.raises(SpecError, match=r"backend\.num_nodes: nodes: 4 nodes .* partition h100 has 2 such"):
        run.resume(["backend.num_nodes=4"])
    assert (run.status.attempt, run.dir.spec_path.name) == (1, "spec.yaml")
    run.resume(["backend.num_nodes=2"])
    assert "#SBATCH --nodes=2" in (cluster / "submitted.sh").read_text()


def test_the_command_marks_what_is_wrong_and_exits_with_1(cluster: Path, words: list[str]) -> None:
    good = workbench("preflight", *words, COLUMNS="300")
    assert good.returncode == 0, good
    assert "2 fit, 2 of them idle" in good.stdout
    bad = workbench("preflight", *words, "backend.partition=h200", "--json")
    assert bad.returncode == 1
    assert {
        "name": "partition",
        "level": "error",
        "message": "there is no partition h200; there are: h100",
        "key": "backend.partition",
    } in json.loads(bad.stdout)
    elsewhere = [word for word in words if not word.startswith("backend")]
    here = workbench("preflight", *elsewhere, "backend=local", "--on-node")
    assert (here.returncode, "--on-node is for backend=slurm" in here.stderr) == (2, True)


def test_data_that_is_not_there_is_an_error(cluster: Path, words: list[str]) -> None:
    found = api.preflight(api.compose([*words, "data.train=nope.jsonl"]))
    assert ("training data", "error", "data.train") in [(each.name, each.level, each.key) for each in found]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm")
def test_file_systems() -> None:
    assert preflight.file_system(Path("/dev/shm/some/where")) == ("tmpfs", "/dev/shm")
    found = preflight._seen_from_afar("run folder", Path("/dev/shm/runs"), "")
    assert (found.level, found.message) == (
        "warning",
        "/dev/shm/runs is on tmpfs (/dev/shm): each node has one of its own there, and sees none of this",
    )


def test_a_shared_file_system_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "file_system", lambda path: ("lustre", "/scratch"))
    assert preflight._seen_from_afar("model", Path("/scratch/model"), "model.source").level == "ok"
