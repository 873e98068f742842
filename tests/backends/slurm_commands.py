"""SLURM's commands and what they print, for tests on a machine without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from workbench.backends import _slurm_nodes, _slurm_queue
from workbench.backends.base import ClusterSnapshot, Partition

Commands = Callable[..., None]
"""What the fixture `commands` gives: `write` in the test's folder, which comes first in PATH."""
GOLDEN = Path(__file__).parent / "golden"
"""The batch scripts that are expected, letter by letter."""
SEP = _slurm_queue.SEPARATOR
NODE = (
    "NodeName={name} Arch=x86_64 CoresPerSocket=48 CPUAlloc={given} CPUEfctv=96 CPUTot=96 CPULoad=3.27 AvailableFeatures={features} "
    "ActiveFeatures={features} Gres=gpu:h100:8(S:0-1) GresDrain=N/A GresUsed=gpu:h100:{gpus}(IDX:0-{gpus}) NodeAddr=10.0.0.1 NodeHostName={name} "
    "Version=23.11.4 OS=Linux 6.1.0 #1 SMP Debian 6.1 (2024)  RealMemory=1000000 AllocMem={memory} FreeMem=N/A Sockets=2 Boards=1 State={state} "
    "ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A Partitions=h100,all  BootTime=2026-11-01T10:00:00 CfgTRES=cpu=96,mem=1000000M "
    "AllocTRES= CapWatts=n/a{reason}\n"
)
PARTITION = (
    "PartitionName={name} AllowGroups=ALL Default={default} MaxNodes=UNLIMITED MaxTime={limit} MinNodes=0 Nodes=n[1-4] State={state} TotalNodes=4\n"
)


def node(name: str, state: str = "IDLE", given: int = 0, gpus: int = 0, features: str = "h100,ib", reason: str = "") -> str:
    return NODE.format(name=name, state=state, given=given, gpus=gpus, memory=given * 1000, features=features, reason=reason)


def survey(*texts: str) -> ClusterSnapshot:
    nodes = _slurm_nodes.nodes("".join(texts or [node(f"n{n}") for n in range(1, 10)]))
    free = replace(nodes[0], state="idle", cpus_used=0, load=0.0, memory_used_mib=0.0, gpus_used=None, gpu_kind="")
    small = replace(free, name="c1", gpus=0, cpus=16, memory_mib=64000.0, partitions=("cpu",), features=())
    partitions = (Partition("h100", True, False, "1-00:00:00"), Partition("all", True, True, "UNLIMITED"), Partition("cpu", True, False, "UNLIMITED"))
    return ClusterSnapshot("slurm", "SLURM", 0.0, (*nodes, small), partitions)


def line(job: str, state: str, reason: str = "None", start: str = "N/A") -> str:
    """A job in squeue's list."""
    return SEP.join((job, state, reason, start, "2", "node[1-2]", "main", "run", "ada", "1:00", "30:00", "gres:gpu:8")) + "\n"


def write(folder: Path, name: str, text: str, code: int = 0) -> None:
    """A command that prints the text, ends with the exit code and counts its calls in `NAME.calls`."""
    (folder / f"{name}.out").write_text(text)
    (folder / name).write_text(f"#!/bin/sh\necho x >> {folder}/{name}.calls\ncat {folder}/{name}.out\nexit {code}\n")
    (folder / name).chmod(0o700)
