"""A policy with the weights of a checkpoint, for jobs that do not train."""

from __future__ import annotations

from pathlib import Path

from workbench.engine import checkpoint, preconditions
from workbench.engine.step import Policy
from workbench.processes.rank import Rank
from workbench.settings.modules import outputs_of
from workbench.settings.sections import CheckpointJob


def restored_policy(rank: Rank, keeps_reference: bool = False) -> tuple[Policy, int]:
    """The policy, with the reference of an algorithm that moves it up, and the steps behind its weights: 0 without a checkpoint. `job.checkpoint` is a checkpoint's folder by now."""
    spec = rank.spec
    assert isinstance(spec.job, CheckpointJob)
    rank.emit("phase", message="loading the model")
    policy = Policy(spec.model, spec.algorithm, rank.directory, 1, outputs_of(spec.algorithm))
    if keeps_reference:
        policy.keep_reference()
    if spec.job.checkpoint is None:
        if policy.wanted.scores:
            preconditions.check_score_head(rank.directory, policy.wanted.scores)
        return policy, 0
    folder = Path(spec.job.checkpoint)
    rank.emit("phase", message=f"loading the checkpoint of step {folder.name}")
    checkpoint.load_weights(policy, folder.parent, int(folder.name))
    return policy, int(folder.name)
