"""Jobs on a checkpoint, launched in one call."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.jobs.checkpoints import evaluation, locate
from workbench.jobs.runs import Run, get, submit
from workbench.settings.composing import quoted
from workbench.settings.spec import compose


def evaluate(run_id: str, step: int | None = None, overrides: Sequence[str] = (), once: str = "") -> Run:
    """Launch the evaluation of a run's checkpoint, the newest without a step: what its validation measures, on the same held-out rows.

    `overrides` set data, validation, backend and layout otherwise: `evaluate("latest", 20, ["data.validation=more.jsonl"])`. `once` is as of `submit`.

    Raises:
        ValueError: no such run; SpecError for no such checkpoint, or an override that an evaluation does not take.
    """
    run = get(run_id)
    return submit(evaluation(run.spec, run.id if step is None else f"{run.id}:{step}", overrides), once)


def generate(source: str, data: str, overrides: Sequence[str] = (), once: str = "") -> Run:
    """Launch a job that answers the prompts of a data set.

    Args:
        source: whose answers: a run's id (`id:step`, `latest`), a checkpoint's folder, or a model as `model.source` names it.
        data: the prompts, as `data.train` names them.
        overrides: `key=value`, as for `compose`: `["job.max_tokens=64", "job.temperature=0"]`.
        once: a name of the user's, as of `submit`.

    Raises:
        SpecError: a wrong override; or no such checkpoint, data or model.
    """
    try:
        of = f"job.checkpoint={quoted(str(locate(source)))}"
    except ValueError:
        of = f"model.source={quoted(source)}"
    return submit(compose(["job=generate", of, f"data.train={quoted(data)}", *overrides]), once)


def annotate(data: str, checkpoint: str | None = None, rules: Sequence[str] = (), overrides: Sequence[str] = (), once: str = "") -> Run:
    """Launch a job that rates the answers of a data set.

    Args:
        data: the answers, as `data.train` names them.
        checkpoint: a reward model with attributes: a run's id (`id:step`, `latest`), or a checkpoint's folder.
        rules: what rates without a model: names of rules, or path/to/file.py:function.
        overrides: `key=value`, as for `compose`: `["data.format=conversation", "job.turns=all"]`.
        once: a name of the user's, as of `submit`.

    Raises:
        SpecError: a wrong override, nothing that rates, or no such checkpoint, rule or data.
    """
    by = [f"job.checkpoint={quoted(checkpoint)}"] if checkpoint is not None else []
    by += [f"job.rules={quoted(list(rules))}"] if rules else []
    return submit(compose(["job=annotate", *by, f"data.train={quoted(data)}", *overrides]), once)
