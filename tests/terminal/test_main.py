"""When the command begins to import what ranks need: for a run on this machine that it waits for, and for nothing else."""

from __future__ import annotations

import pytest

from workbench.terminal.main import runs_here


@pytest.mark.parametrize(
    ("line", "here"),
    [
        ("run experiment=dpo_demo", True),
        ("run algorithm=sft data.train=a.jsonl backend=local backend.ranks_per_node=2", True),
        ("run algorithm=sft --json data.train=a.jsonl", True),
        ("run experiment=dpo_demo backend=slurm backend.num_nodes=8", False),
        ("run experiment=dpo_demo --dry-run", False),
        ("run experiment=dpo_demo --detach", False),
        ("run --help", False),
        ("run", False),
        ("list", False),
        ("export latest --out run", False),
        ("", False),
    ],
)
def test_runs_here(line: str, here: bool) -> None:
    assert runs_here(line.split()) is here
