"""`wb.steer` and `wb.chat`: checkpoints that are served, to ask them from a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench import api
from workbench.notebook import progress, used_runs
from workbench.notebook.experiments import Settings
from workbench.notebook.runs import Run
from workbench.settings import composing

if TYPE_CHECKING:
    from workbench.notebook.widgets.chat import Chat
    from workbench.notebook.widgets.sliders import AttributeSliders

TIMEOUT_S = 600.0


def steer(*checkpoints: Run | str, measure: Run | str | None = None, rules: Sequence[str] = (), **settings: Settings) -> AttributeSliders:
    """Sliders for the attributes of a checkpoint, with its answers as they come. A living endpoint that serves the same is used again, else one is started.

    Args:
        checkpoints: what is served, side by side: a run, `id:step`, a checkpoint's folder, or a model.
        measure: a reward model with attributes that measures the answers; one that did not annotate the training data.
        rules: what measures them without a model: names of rules, or path/to/file.py:function.
        settings: as of an Experiment: `job={"idle_timeout_s": 600}`, `backend="slurm"`.

    Raises:
        SpecError: a wrong setting, or no such checkpoint; ValueError where the endpoint ends before it serves.

    >>> sliders = wb.steer("my steered run", rules=["verbosity"])  # doctest: +SKIP
    """
    from workbench.notebook.widgets.sliders import AttributeSliders

    return AttributeSliders(_serving(checkpoints, measure, rules, settings))


def chat(*checkpoints: Run | str, **settings: Settings) -> Chat:
    """A conversation with checkpoints: one, or several side by side, such as the base model beside the tuned one. Otherwise as `steer`."""
    from workbench.notebook.widgets.chat import Chat

    return Chat(_serving(checkpoints, None, (), settings))


def _serving(checkpoints: Sequence[Run | str], measure: Run | str | None, rules: Sequence[str], settings: dict[str, Settings]) -> api.Run:
    """The endpoint, once it answers."""
    used_runs.refuse_launch("an endpoint")
    overrides = [f"job.measure={composing.quoted(_name(measure))}"] if measure is not None else []
    overrides += [f"job.rules={composing.quoted(list(rules))}"] if rules else []
    overrides += [f"{key}={composing.quoted(value)}" for key, value in composing.leaves(dict(settings))]
    with progress.waiting("starting the endpoint …"):
        run = api.serve_or_find([_name(each) for each in checkpoints], overrides)
        api.until_serving(run, TIMEOUT_S)
    used_runs.note(run.id)
    return run


def _name(of: Run | str) -> str:
    return of if isinstance(of, str) else of.id
