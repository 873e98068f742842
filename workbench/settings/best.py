"""Which checkpoints are the best (`checkpoint.keep_best`): by which held-out metric, and whether there will be one to tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from workbench import metrics as M
from workbench.settings.modules import find_algorithm_or_none
from workbench.settings.naming import nearest
from workbench.settings.sections import AlgorithmConfig, Checkpoint, JobConfig, Validation

AUTO = "auto"


class Experiment(Protocol):
    """What is read of `workbench.settings.spec.Experiment`."""

    @property
    def job(self) -> JobConfig: ...

    @property
    def algorithm(self) -> AlgorithmConfig: ...

    @property
    def validation(self) -> Validation: ...

    @property
    def checkpoint(self) -> Checkpoint: ...


def metric(experiment: Experiment) -> str:
    """The metric that ranks the checkpoints."""
    if experiment.checkpoint.best_metric != AUTO:
        return experiment.checkpoint.best_metric
    return M.REWARDS if "reward" in find_algorithm_or_none(experiment.algorithm.name).ROLES else M.LOSS


def settled(experiment: Experiment) -> Checkpoint:
    """The checkpoint's settings with what was left open decided."""
    name, mode = metric(experiment), experiment.checkpoint.best_mode
    if mode == AUTO:
        mode = "max" if M.better_larger(name) else "min"
    return experiment.checkpoint.model_copy(update={"best_metric": str(name), "best_mode": mode})


def check(experiment: Experiment) -> None:
    """What can be told before the run.

    Raises:
        ValueError: checkpoints are to be ranked by a metric that nobody registered, or no checkpoint will have been validated.
    """
    if not experiment.checkpoint.keep_best or "checkpoint" not in experiment.job.sections:
        return
    if M.find(name := metric(experiment)) is None:
        raise ValueError(f"checkpoint.best_metric={name}: there is no such metric{nearest(name, list(M.METRICS))}; `workbench metrics` lists all")
    validated, saved = experiment.validation.every_steps, experiment.checkpoint.every_steps
    if not validated or not saved:
        key = "checkpoint.every_steps" if validated else "validation.every_steps"
        raise ValueError(
            f"checkpoint.keep_best={experiment.checkpoint.keep_best} with {key}=0: only the last step would have both; set {key} above 0"
        )
    if experiment.algorithm.max_steps:
        check_steps(experiment, experiment.algorithm.max_steps)


def check_steps(experiment: Experiment, total_steps: int, held_out: int | None = None) -> None:
    """What can be told once the number of steps is known, and that of held-out rows.

    Raises:
        ValueError: no step before the last has both a validation and a checkpoint, or there are no held-out rows.
    """
    if not experiment.checkpoint.keep_best:
        return
    validated, saved = experiment.validation.every_steps, experiment.checkpoint.every_steps
    together = math.lcm(validated, saved)
    if total_steps > 1 and together > total_steps:
        raise ValueError(
            f"checkpoint.keep_best: validations every {validated} steps and checkpoints every {saved} meet at step {together}, and the run has "
            f"{total_steps}; set checkpoint.every_steps to a multiple of validation.every_steps"
        )
    if held_out == 0:
        raise ValueError(
            "checkpoint.keep_best ranks checkpoints by held-out rows, and there are none: set data.validation or data.validation_fraction"
        )


def check_measured(experiment: Experiment, measured: Mapping[str, float]) -> None:
    """Raises ValueError where the first validation does not have the metric that ranks the checkpoints."""
    name = metric(experiment)
    if experiment.checkpoint.keep_best and name not in measured:
        raise ValueError(
            f"checkpoint.best_metric={name} is not measured on held-out rows{nearest(name, list(measured))}; these are: {', '.join(sorted(measured))}"
        )
