"""Training: the algorithm's loop over the engine, with validation, checkpoints, alarms and what the run's owner asks for."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from workbench import metrics as M
from workbench.settings import JobConfig, best

if TYPE_CHECKING:
    from workbench.algorithms import Loss, Metrics, OnlineRuntime
    from workbench.data.packing import Coverage, Row
    from workbench.processes.answering import OwnAnswers
    from workbench.processes.online import Online
    from workbench.processes.opponent import Opponent
    from workbench.processes.rank import Rank
    from workbench.processes.teaching import Teaching
    from workbench.rollout.base import Drawn


DIVERGED = (M.LOSS, M.GRAD_NORM, M.CRITIC_LOSS, M.CRITIC_GRAD_NORM)
"""Metrics of a step that end the run where they are not finite (`watch.stop_on_nan`)."""


class Config(JobConfig):
    """Train the model with the algorithm."""

    sections = ("algorithm", "model", "data", "validation", "checkpoint", "rollout", "watch", "backend")
    outputs: ClassVar = {"checkpoint": "checkpoints"}

    name: Literal["train"] = "train"


class Training:
    """`workbench.algorithms.Runtime`, on one rank."""

    def __init__(self, rank: Rank):
        from workbench import algorithms
        from workbench.processes.alarm_bell import AlarmBell
        from workbench.processes.controls import Controls
        from workbench.processes.validation import Validation

        self._rank, self._spec = rank, rank.spec
        self._algorithm = algorithms.find(rank.spec.algorithm.name)
        self.state: dict[str, object] = {}
        self._teaching: Teaching | None = None
        self._teacher_weights: str | None = None
        self._load_data()
        self._covered = self._coverage()
        self.total_steps = self._covered.drawn // self._spec.algorithm.rows_per_step
        best.check_steps(self._spec, self.total_steps, held_out=len(self._held_out))
        restored = self._load_policy()
        self._controls = Controls(rank, self._change, restored.get("obeyed", 0.0))
        self._online = self._load_online()
        self._bell = AlarmBell(rank, self._online.worst if self._online else lambda quantity: ())
        prompts = self._data.validation_prompts[: self._spec.validation.samples]
        self._opponent: Opponent | None = None
        self._own_answers: OwnAnswers | None = None
        self._validation = Validation(rank, self._algorithm, self._policy, self._held_out, prompts, self._online, lambda: self.opponent)

    def _load_data(self) -> None:
        from workbench import algorithms
        from workbench.processes.validation import rows_of

        kind = algorithms.kind_of_rows(self._spec.algorithm, self._spec.data)
        self._data = self._rank.read(self._spec.data, kind, getattr(self._spec.algorithm, "max_tokens", 0))
        if not self._data.train:
            raise ValueError(f"data.train={self._spec.data.train}: no row is left to train on; `workbench data check` tells why")
        self._train, self._held_out = rows_of(self._algorithm, self._spec, self._data)
        if check := getattr(self._algorithm, "check", None):
            for warning in check([*self._train, *self._held_out], self._spec.algorithm):
                self._rank.warn(warning)

    def _coverage(self) -> Coverage:
        """How the steps go over the rows; warned of where that is not what the settings ask for."""
        from workbench.data.packing import coverage

        cfg, rows = self._spec.algorithm, len(self._train)
        if own := getattr(self._algorithm, "coverage", None):
            return own(cfg, rows, self._spec.seed)
        covered = coverage(rows, cfg.rows_per_step, cfg.max_steps or max(1, cfg.epochs * rows // cfg.rows_per_step))
        if rows < cfg.rows_per_step:
            self._rank.warn(
                f"a step takes {cfg.rows_per_step} rows, and there are {rows}: it learns from each of them {cfg.rows_per_step / rows:.3g} times"
            )
        elif covered.last_pass and cfg.max_steps is None:
            left_out = f"{covered.last_pass} of {rows} rows" + (" in the last pass" if cfg.epochs > 1 else "")
            self._rank.warn(f"{left_out} are not learnt from: they do not fill a batch of {cfg.rows_per_step}")
        return covered

    def _load_policy(self) -> dict[str, Any]:
        """The policy as its newest checkpoint has it. Returns the run's state there."""
        from workbench.engine import checkpoint, parallel
        from workbench.engine.step import Policy
        from workbench.processes.live import LiveSettings
        from workbench.processes.reference_cache import with_reference
        from workbench.processes.teaching import Teaching
        from workbench.settings.modules import outputs_of

        spec = self._spec
        self._rank.emit("phase", message="loading the model")
        self._policy = Policy(spec.model, spec.algorithm, self._rank.directory, self.total_steps, outputs_of(spec.algorithm))
        self._live = LiveSettings(spec.algorithm, self._policy.use)
        if self._algorithm.ROLES.get("reference") == "advancing":  # before a checkpoint is loaded: the first weights are the first reference
            self._policy.keep_reference()
        elif "reference" in self._algorithm.ROLES and not self._learns_from_rollouts:
            self._train = self._measured(self._train, lambda rows: with_reference(rows, "train", self._policy, self._rank))
            self._held_out = with_reference(self._held_out, "validation", self._policy, self._rank)
        if "teacher" in self._algorithm.ROLES and not self._learns_from_rollouts:
            self._teaching = teaching = Teaching(self._rank, self._policy)
            self._train = self._measured(self._train, teaching.before)
            self._held_out = teaching.held_out(self._held_out)
        self._checkpoints = checkpoint.Checkpoints(self._policy, self._rank.run.checkpoints, best.settled(spec))
        self.step = self._checkpoints.load_newest(self._rank.warn)
        restored = parallel.from_first(checkpoint.state_of(self._rank.run.checkpoints, self.step) if parallel.rank() == 0 else {})
        self._live.load_state_dict(restored.get("settings", {}))
        self.state.update(restored.get("algorithm", {}))
        self._teacher_weights = self._teaching.fingerprint() if self._teaching else None
        if (before := restored.get("teacher")) and before != self._teacher_weights:
            raise ValueError("algorithm.teacher.source has other weights than when the run began: put the files back, or launch the run anew")
        return restored

    def _measured(self, rows: Sequence[Row], measure: Callable[[Sequence[Row]], list[Row]]) -> list[Row]:
        """The rows, those that the steps learn from with what is measured of them beforehand."""
        from workbench.data.packing import batch_indices

        drawn = self.total_steps * self._spec.algorithm.rows_per_step
        learnt = sorted(set(batch_indices(len(rows), drawn, 0, self._spec.seed).tolist()))
        measured = dict(zip(learnt, measure([rows[i] for i in learnt]), strict=True))
        return [measured.get(i, row) for i, row in enumerate(rows)]

    @property
    def _learns_from_rollouts(self) -> bool:
        return "reward" in self._algorithm.ROLES

    def _load_online(self) -> Online | None:
        if not self._learns_from_rollouts:
            return None
        from workbench.processes.online import Online

        online = Online(self, self._rank, self._policy, self._algorithm.ROLES)
        if online.critic:
            online.critic.restore(self.step)
        return online

    # --- what an algorithm's loop sees (workbench.algorithms.Runtime)

    @property
    def rows(self) -> Sequence[Row]:
        return self._train

    @property
    def seed(self) -> int:
        return self._spec.seed

    def batches(self) -> Iterator[Sequence[Row]]:
        return map(self.batch, range(self.step, self.total_steps))

    def batch(self, step: int) -> Sequence[Row]:
        """The global batch of a step, from 0."""
        from workbench.data.packing import batch_indices

        chosen = batch_indices(len(self._train), self._spec.algorithm.rows_per_step, step, self._spec.seed)
        return [self._train[i] for i in chosen]

    def evaluate(self, rows: Sequence[Row], loss: Loss) -> Metrics:
        return self._policy.evaluate(rows, loss)

    def update(self, rows: Sequence[Row], loss: Loss) -> Metrics:
        from workbench.rundir import beats

        with beats.doing("train"):
            return self._policy.update(rows, loss, self.step, self._spec.seed)

    def with_reference(self, rows: Sequence[Row]) -> list[Row]:
        from workbench.processes.reference_cache import measured_by_reference

        return measured_by_reference(rows, self._policy)

    def with_teacher(self, rows: Sequence[Row]) -> list[Row]:
        assert self._teaching, "this algorithm has no teacher among its ROLES, or learns from rollouts, and then asks it with online.ask"
        return self._teaching.of_step(rows)

    def advance_reference(self) -> str:
        self._policy.advance_reference()
        snapshot = self._policy.snapshot
        assert snapshot
        digest = snapshot.digest()
        self._rank.emit("reference", step=self.step, version=snapshot.version, digest=digest)
        return digest

    def own_answers(self, drawn: Drawn) -> OwnAnswers:
        from workbench.processes.answering import OwnAnswers

        self._own_answers = OwnAnswers(self._rank, self._policy, drawn, lambda: self.step)
        return self._own_answers

    @property
    def opponent(self) -> Opponent:
        if self._opponent is None:
            from workbench.processes.opponent import Opponent

            self._opponent = Opponent(self._rank, self._policy, self.stop_requested)
        return self._opponent

    @property
    def settings(self) -> Any:
        return self._live.now

    def set(self, **values: object) -> None:
        self._live.set(**values)

    @property
    def online(self) -> OnlineRuntime:
        assert self._online, "this algorithm has no rollouts: there is no reward among its ROLES"
        return self._online

    # --- the run

    def go(self) -> None:
        """Train to the end or to a stop, whichever comes first."""
        from workbench.engine import parallel
        from workbench.rewards.waiting import StopRequested
        from workbench.rundir import beats
        from workbench.rundir.store import COMPLETE

        rank = self._rank
        rank.emit(
            "state", state="running", step=self.step, total_steps=self.total_steps, live=self._live.live, coverage=dataclasses.asdict(self._covered)
        )
        beats.moved(self.step)
        try:
            reason = self._steps()
        except StopRequested:  # while it waited for rewards: the step that it was in is given up
            reason = "stopped"
            self._report_checkpoint(wait=True)
            if self.step and not parallel.from_first((rank.run.checkpoints / str(self.step) / COMPLETE).exists()):
                self._save(None)
        if self._online:
            self._online.close()
        self._report_checkpoint(wait=True)
        rank.emit("end", reason=reason, step=self.step)

    def _steps(self) -> str:
        """The steps, to the end or to a stop; which of them it was. Raises StopRequested for a stop in the middle of a step."""
        spec = self._spec
        held_out = self._validation.measure(0) if self.step == 0 else {}
        if held_out:
            best.check_measured(spec, held_out)
        if self.stop_requested():
            return "stopped"
        began = time.perf_counter()
        for learnt in self._algorithm.train(self.settings, self):
            self.step += 1
            self._report_step(learnt, began)
            last = self.step == self.total_steps
            held_out = self._validation.measure(self.step) if last or _due(self.step, spec.validation.every_steps) else {}
            stop = not last and self.stop_requested()
            if last or stop or _due(self.step, spec.checkpoint.every_steps):
                self._save(held_out.get(best.metric(spec)))
            if stop:
                return "stopped"
            began = time.perf_counter()
        return "completed"

    def stop_requested(self) -> bool:
        return self._controls.stop_requested(self.step)

    def _report_step(self, learnt: Metrics, began: float) -> None:
        from workbench.rundir import beats

        sampler = self._online or self._opponent or self._own_answers
        sampled = {**sampler.measured(), M.STEP_TIME_S: time.perf_counter() - began} if sampler else {}
        metrics = {**learnt, **self._of_teacher(learnt), **sampled}
        beats.moved(self.step)
        self._rank.emit("step", step=self.step, metrics=metrics)
        self._bell.emit_alarms(self.step, metrics)
        self._report_checkpoint(wait=False)
        if self._spec.watch.stop_on_nan:
            self._stop_on_nan(metrics)

    def _of_teacher(self, learnt: Metrics) -> Metrics:
        """The seconds of the step's teacher, which the update's do not have, and what asking its server cost."""
        if self._teaching is None or not (seconds := self._teaching.seconds()):
            return {}
        return {M.TIME_OF("teacher"): seconds, M.STEP_TIME_S: learnt[M.STEP_TIME_S] + seconds, **self._teaching.traffic()}

    def _stop_on_nan(self, metrics: Metrics) -> None:
        """Raises ValueError for a step whose loss or gradients are not finite, once a checkpoint that is being written is in place."""
        from workbench.engine import checkpoint

        bad = [name for name in DIVERGED if not math.isfinite(metrics.get(name, 0.0))]
        if not bad:
            return
        self._report_checkpoint(wait=True)
        steps = checkpoint.complete_steps(self._rank.run.checkpoints)
        before = f"resume from the checkpoint of step {steps[-1]}" if steps else "there is no checkpoint from before; launch it again"
        raise ValueError(
            f"step {self.step}: {' and '.join(bad)} {'is' if len(bad) == 1 else 'are'} NaN or infinite: the run stops here (watch.stop_on_nan);"
            f" {before}, with a lower algorithm.lr or more algorithm.warmup_steps"
        )

    def _save(self, metric: float | None) -> None:
        """Begin a checkpoint of this step, of the critic first: so that a checkpoint of the policy has its critic's beside it."""
        from workbench.engine import checkpoint
        from workbench.rundir import beats

        with beats.doing("checkpoint"):
            self._report_checkpoint(wait=True)
            if not checkpoint.is_finite(self._policy):
                self._rank.warn(f"no checkpoint of step {self.step}: the weights are NaN or infinite; the earlier ones are kept")
                return
            if self._online and self._online.critic:
                self._online.critic.save(self.step)
            state = {"settings": self._live.state_dict(), "obeyed": self._controls.last_request_time, "algorithm": self.state}
            state |= {"teacher": self._teacher_weights} if self._teacher_weights else {}
            self._checkpoints.save(self.step, metric if metric is None or math.isfinite(metric) else None, state)
            self._report_checkpoint(wait=not self._spec.checkpoint.asynchronous)

    def _report_checkpoint(self, wait: bool) -> None:
        from workbench.rundir import beats

        with beats.doing("checkpoint"):
            done = self._checkpoints.finish(wait)
        if done:
            self._rank.emit("checkpoint", **done)

    def _change(self, values: Mapping[str, object]) -> None:
        """A change asked for during the run; one that the settings do not allow is warned of and left."""
        try:
            self._live.change(values)
        except ValueError as error:
            self._rank.warn(f"not changed: {error}")


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def work(rank: Rank) -> None:
    """What a rank of this kind of job does."""
    Training(rank).go()
