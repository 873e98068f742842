"""A cluster as SLURM tells of it, with two runs of ours."""

from __future__ import annotations

import time

from tests.backends.slurm_commands import node, survey
from workbench.backends.base import ClusterSnapshot, Entry
from workbench.machines.usage import Allocation, Cluster, Use
from workbench.rundir.store import State


def entry(job: str, state: str = "RUNNING", user: str = "ada", reason: str = "None", start: str = "2026-11-25T20:00:00", nodes: str = "n1") -> Entry:
    return Entry(job, state, reason, start, 1, nodes, "h100", "job", user, "1:00", "30:00", "gres:gpu:8", waits=state == "PENDING")


def sample() -> Cluster:
    """Three nodes, one of them down; a run of two ranks on two of them, one rank silent."""
    found = survey(node("n1", "ALLOCATED", 96, 8), node("n2", "MIXED", 40, 3), node("n3", "DOWN", reason=" Reason=fan [root@2026-11-25T10:00:00]"))
    jobs = (entry("3", user="bob"), entry("8", "PENDING", "ada", "Resources", "2026-11-25T22:00:00", ""), entry("7"))
    uses = (
        Use("actor", 0, "n1", 11, 7.9, 4096.0, 61440.0, 0.93, 12, "train"),
        Use("actor", 1, "n2", 12, 0.1, 2048.0, 61440.0, 0.0, 12, "all_reduce", age_s=42.0, silent=True),
    )
    run = Allocation("20261125-1-dpo-aa", "dpo", "dpo", State.RUNNING, "", "slurm", "7", 0.0, 12, 100, uses)
    waiting = Allocation("20261125-2-sft-bb", "sft", "sft", State.QUEUED, "SLURM job 8: waiting for nodes (Resources)", "slurm", "8", 0.0, 0, 0)
    return Cluster(ClusterSnapshot("slurm", "SLURM 23.11.4", time.time(), found.nodes, found.partitions, jobs), (run, waiting), user="ada")
