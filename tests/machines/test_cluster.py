"""What the Cluster page and `workbench cluster` show: this machine with a real run, and a cluster from SLURM's words."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from tests.backends import stand_in
from tests.backends.slurm_commands import node
from tests.command_line import workbench
from tests.machines.sample import sample
from tests.waiting import until
from workbench import api
from workbench.backends import _machine, _slurm_nodes
from workbench.backends.base import ClusterSnapshot, Device
from workbench.machines import usage as cluster
from workbench.machines.usage import Allocation, Cluster
from workbench.rundir import beats, store
from workbench.terminal import machines as terminal
from workbench.views import machines as views

ROOT = Path(__file__).parents[2]


def test_a_real_run_on_this_machine_and_what_its_ranks_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks, each a busy loop with 200 MiB: what is told is what they use, and what /proc says of them."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    run = api.Run(stand_in.start(tmp_path, stand_in.BUSY, ranks_per_node=2).dir)

    def resident_mib(pid: int) -> float:
        line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def busy() -> Allocation | None:
        (found,) = api.cluster("local").allocations
        agreed = [0.05 < use.cpus <= 1.1 and use.memory_mib == pytest.approx(resident_mib(use.pid), rel=0.2) for use in found.ranks]
        return found if agreed == [True, True] else None

    try:
        found = until(busy, what="beats of both ranks that say what /proc says")
        assert [(use.role, use.rank, use.host) for use in found.ranks] == [("actor", 0, socket.gethostname()), ("actor", 1, socket.gethostname())]
        assert all(200 < use.memory_mib < 600 for use in found.ranks), found.ranks
        assert {"driver", "fork server"} <= {use.role for use in found.uses if use.rank is None}
        told = workbench("cluster", "--here", "--json")
        (listed,) = json.loads(told.stdout)["allocations"]
        assert (listed["run_id"], len([use for use in listed["uses"] if use["rank"] is not None])) == (run.id, 2)
        shown = workbench("cluster", "--here").stdout
        assert run.id in shown
        assert "actor 1" in shown
    finally:
        run.kill()
    assert api.cluster("local").allocations == ()


def test_this_machine_has_what_it_has() -> None:
    (found,) = api.cluster("local").survey.nodes
    assert found.cpus == len(os.sched_getaffinity(0)) == len(found.cores)
    assert 0 <= found.cpus_used <= found.cpus
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert found.memory_mib == pytest.approx(int(total.split()[1]) / 1024)


def test_gpus_as_nvidia_smi_tells_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 61440, 97'\necho 'NVIDIA A100, PCIe, 40960, 12, [N/A]'\n")
    smi.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert _machine.devices() == (Device("NVIDIA H100 80GB HBM3", 81559, 61440, 0.97), Device("NVIDIA A100, PCIe", 40960, 12, None))
    node = _machine._look(None).nodes[0]
    assert [(gauge.label, gauge.caption, gauge.share) for gauge in views.devices(node)] == [
        ("GPU 0 NVIDIA H100 80GB HBM3", "97% busy · 60.0 GiB of 79.6 GiB", 0.97),
        ("GPU 1 NVIDIA A100, PCIe", "– busy · 12 MiB of 40.0 GiB", 0.0),
    ]
    smi.write_text("#!/bin/sh\necho 'no driver' >&2\nexit 9\n")
    with pytest.raises(OSError, match="nvidia-smi: no driver"):
        _machine.devices()


def test_the_headline_counts_what_takes_jobs() -> None:
    shown = {figure.label: (figure.value, figure.note) for figure in views.headline(sample())}
    assert shown == {
        "Nodes": ("3", "of 4 · 1 idle"),
        "CPUs given": ("136", "of 208 · load 6.5"),
        "GPUs given": ("11", "of 16 h100"),
        "Memory given": ("133 GiB", "of 2.0 TiB · 7%"),
        "Jobs running": ("2", "1 waiting"),
        "My runs": ("1", "2 ranks · 1 queued"),
    }


def test_rows_of_nodes_partitions_queue_and_ranks() -> None:
    found = sample()
    nodes = {row["Node"]: row for row in views.nodes(found)}
    assert (nodes["n1"]["GPU"], nodes["n1"]["My runs"], nodes["n3"]["State"]) == ("8 of 8 GPUs h100", "dpo", "down: fan")
    assert [views.kind(each) for each in found.survey.nodes] == ["full", "part", "down", "idle"]
    h100 = views.partitions(found)[0]
    assert (h100["Nodes"], h100["Idle"], h100["A node has"], h100["Waiting jobs"]) == ("2 of 3", "0", "96 CPUs, 8 h100 GPUs, 977 GiB", "1")
    queue = views.queue(found)
    assert [(row["Job"], row["Name"], row["Start"]) for row in queue] == [
        ("8", "sft", "expected 2026-11-25 22:00:00"),
        ("7", "dpo", "for 1:00"),
        ("3", "job", "for 1:00"),
    ]
    first, second = views.ranks(found.allocations[0])
    assert (first["Process"], first["CPUs"], first["Memory"], first["GPU"], first["GPU memory"], first["Doing"]) == (
        "actor 0",
        7.9,
        4.0,
        93,
        60.0,
        "train",
    )
    assert second["Doing"] == "silent for 42 s; all reduce"
    assert views.totals(found.allocations[0]) == "2 ranks on 2 nodes (n1 … n2) · 8.0 CPUs · 6.0 GiB · 120 GiB of GPU memory"
    assert views.totals(found.allocations[1]) == "SLURM job 8: waiting for nodes (Resources)"


def test_a_rank_is_silent_whatever_the_clocks_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer whose clock is a minute ahead; then a file system that takes each writer's time, with the ranks' clocks a minute behind or ahead."""
    run = store.create(tmp_path, "one", "{}")
    heart, folder = beats.Heart(run, "actor"), run.path / "beats"

    def looked(written_s_ago: float = 0.0) -> tuple[bool, float]:
        (path,) = folder.glob("*.json")
        os.utime(path, times=(real() - written_s_ago, real() - written_s_ago))
        (use,) = cluster._ranks(folder, beats.read(run), 1)
        return use.silent, use.age_s

    real = time.time
    heart._beat()
    monkeypatch.setattr(time, "time", lambda: real() + 60)
    assert looked() == (False, pytest.approx(0, abs=2))
    cluster._beaten.clear()
    assert looked(30) == (True, pytest.approx(30, abs=2))
    assert looked() == (False, pytest.approx(0, abs=2))
    for behind_s in (60, -60):
        cluster._beaten.clear()
        looked(behind_s)
        for beat in range(3):
            assert looked(behind_s - beat) == (False, pytest.approx(0, abs=2))
        monkeypatch.setattr(time, "monotonic", lambda then=time.monotonic: then() + 20)
        (use,) = cluster._ranks(folder, beats.read(run), 1)
        assert (use.silent, use.age_s) == (True, pytest.approx(20, abs=2))


def test_the_terminal_shows_the_same() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal.render(sample()))
    shown = console.export_text()
    for words in (
        "SLURM 23.11.4",
        "GPUs given 11 (of 16 h100)",
        "down: fan",
        "8 of 8 GPUs h100",
        "expected 2026-11-25 22:00:00",
        "silent for 42 s",
        "60.0",
    ):
        assert words in shown, words


def test_watching_goes_on_until_it_is_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workbench.terminal.cli", "cluster", "--here", "--watch", "--every", "0.5", "--json"]
    env = {**os.environ, "WORKBENCH_RUNS": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=env)
    assert process.stdout is not None
    times = [json.loads(process.stdout.readline())["survey"]["time"] for _ in range(5)]  # a survey of this machine is kept for a second
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert (process.returncode, told) == (0, "")
    assert times == sorted(times)
    assert times[-1] >= times[0] + 1


def test_a_terminal_is_drawn_anew(tmp_path: Path) -> None:
    """In a pseudo terminal: the alternate screen is entered, drawn at least twice, and left again."""
    command = [sys.executable, "-m", "workbench.terminal.cli", "cluster", "--here", "--watch", "--every", "0.5"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env={**os.environ, "TERM": "xterm", "WORKBENCH_RUNS": str(tmp_path)}
    )
    os.close(theirs)
    seen = b""
    while seen.count(b"CPUs busy") < 2:
        seen += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # the other end is closed
        while more := os.read(ours, 65536):
            seen += more
    os.close(ours)
    assert process.wait(120) == 0
    assert seen.index(b"\x1b[?1049h") < seen.index(b"CPUs busy") < seen.index(b"\x1b[?1049l")


@pytest.mark.parametrize(("value", "expected"), [(512, "512 MiB"), (4000, "3.9 GiB"), (1_000_000, "977 GiB"), (2_000_000, "1.9 TiB")])
def test_memory_for_people(value: float, expected: str) -> None:
    assert views.mib(value) == expected


def test_a_thousand_nodes_are_read_and_counted_in_a_moment() -> None:
    text = "".join(node(f"n{number:04d}", "MIXED", 40, 3) for number in range(1000))
    began = time.thread_time()
    found = Cluster(ClusterSnapshot("slurm", "SLURM", 0.0, _slurm_nodes.nodes(text)), user="ada")
    assert {figure.label: figure.value for figure in views.headline(found)}["GPUs given"] == "3,000"
    assert len(views.nodes(found)) == 1000
    spent = time.thread_time() - began
    print(f"{1e3 * spent:.0f} ms")
    assert spent < 2
