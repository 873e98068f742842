"""Evaluating: what a training run's validation measures, on any checkpoint, in any layout. Its metrics are those of the checkpoint's step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from workbench.settings.sections import CheckpointJob

if TYPE_CHECKING:
    from workbench.data.packing import Row
    from workbench.engine.step import Policy
    from workbench.processes.rank import Rank


class Config(CheckpointJob):
    """Measure a checkpoint on held-out rows: the loss's metrics, or the reward of sampled answers; and answers to read."""

    sections = ("algorithm", "model", "data", "validation", "rollout", "watch", "backend")

    name: Literal["evaluate"] = "evaluate"


class Evaluation:
    """One rank of it. As `workbench.processes.online.Progress` it is at the checkpoint's step, and nothing comes."""

    def __init__(self, rank: Rank):
        from workbench import algorithms
        from workbench.processes.controls import Controls
        from workbench.processes.online import Online
        from workbench.processes.opponent import Opponent
        from workbench.processes.reference_cache import with_reference
        from workbench.processes.restored import restored_policy
        from workbench.processes.validation import Validation, rows_of

        spec, algorithm = rank.spec, algorithms.find(rank.spec.algorithm.name)
        self._rank = rank
        data = rank.read(spec.data, algorithms.kind_of_rows(spec.algorithm, spec.data), getattr(spec.algorithm, "max_tokens", 0))
        _, held_out = rows_of(algorithm, spec, data)
        if not held_out:
            raise ValueError("there are no held-out rows to measure: name a file, data.validation=…, or a share, data.validation_fraction=0.1")
        advances = algorithm.ROLES.get("reference") == "advancing"
        policy, self.step = restored_policy(rank, keeps_reference=advances)
        self.total_steps = self.step
        self._controls = Controls(rank, lambda values: rank.warn(f"not changed: {', '.join(values)}; an evaluation measures a checkpoint as it is"))
        on_rollouts = "reward" in algorithm.ROLES
        if "reference" in algorithm.ROLES and not (advances or on_rollouts):
            held_out = with_reference(held_out, "validation", policy, rank)
        if "teacher" in algorithm.ROLES and not on_rollouts:
            held_out = self._taught(held_out, policy)
        online = Online(self, rank, policy, ["reward"]) if on_rollouts else None
        prompts = data.validation_prompts[: spec.validation.samples]
        self._validation = Validation(rank, algorithm, policy, held_out, prompts, online, lambda: Opponent(rank, policy, self.stop_requested))

    def _taught(self, rows: Sequence[Row], policy: Policy) -> list[Row]:
        """The rows with what the teacher tells of them; warned of where it is another than the checkpoint learnt from."""
        from workbench.engine import checkpoint, parallel
        from workbench.processes.teaching import Teaching

        teaching, job = Teaching(self._rank, policy), self._rank.spec.job
        taught = teaching.held_out(rows)
        folder = job.checkpoint if isinstance(job, CheckpointJob) else None
        learnt_from = parallel.from_first(
            checkpoint.state_of(Path(folder).parent, self.step).get("teacher") if folder and parallel.rank() == 0 else None
        )
        if learnt_from and learnt_from != teaching.fingerprint():
            self._rank.warn(
                "algorithm.teacher.source has other weights than the teacher that this checkpoint learnt from: what is measured is the distance to these"
            )
        return taught

    def batch(self, step: int) -> Sequence[Row]:
        raise NotImplementedError("an evaluation learns from no batch")

    def stop_requested(self) -> bool:
        return self._controls.stop_requested(self.step)

    def go(self) -> None:
        """Measure once."""
        from workbench.rewards.waiting import StopRequested
        from workbench.rundir import beats

        rank = self._rank
        rank.emit("state", state="running", step=self.step, total_steps=self.total_steps)
        beats.moved(self.step)
        reason = "stopped" if self.stop_requested() else "completed"
        if reason == "completed":
            try:
                self._validation.measure(self.step)
            except StopRequested:  # while it waited for rewards
                reason = "stopped"
        rank.emit("end", reason=reason, step=self.step)


def work(rank: Rank) -> None:
    """What a rank of this kind of job does."""
    Evaluation(rank).go()
