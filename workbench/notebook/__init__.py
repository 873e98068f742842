"""The workbench in a notebook: `import workbench as wb`.

`experiments` sets up, `runs` launches and finds, `rollout_table` and `comparison` read, `checks` looks before a launch, `widgets` are live.
Everything shows itself as a static picture that a saved notebook keeps (`workbench.views.pictures`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from workbench.notebook.checks import DataReport, Findings, check_data, preflight
from workbench.notebook.comparison import Comparison, compare
from workbench.notebook.experiments import Experiment, SpecError
from workbench.notebook.pipelines import Pipeline, PipelineList, launch_pipeline, pipelines
from workbench.notebook.rollout_table import RolloutTable
from workbench.notebook.runs import Run, RunList, attach, evaluate, generate, get, launch, runs

if TYPE_CHECKING:
    from workbench.notebook.widgets.compare import Compare
    from workbench.notebook.widgets.data_preview import DataPreview
    from workbench.notebook.widgets.live_run import LiveRun
    from workbench.notebook.widgets.rollouts import Rollouts
    from workbench.notebook.widgets.run_form import RunForm

WIDGETS = {"LiveRun": "live_run", "RunForm": "run_form", "Rollouts": "rollouts", "Compare": "compare", "DataPreview": "data_preview"}
"""By name the file of each; loaded when it is asked for, as only a notebook has ipywidgets."""
__all__ = [
    "Compare",
    "Comparison",
    "DataPreview",
    "DataReport",
    "Experiment",
    "Findings",
    "LiveRun",
    "Pipeline",
    "PipelineList",
    "RolloutTable",
    "Rollouts",
    "Run",
    "RunForm",
    "RunList",
    "SpecError",
    "attach",
    "check_data",
    "compare",
    "evaluate",
    "generate",
    "get",
    "launch",
    "launch_pipeline",
    "pipelines",
    "preflight",
    "runs",
]


def __getattr__(name: str) -> object:
    if name not in WIDGETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"workbench.notebook.widgets.{WIDGETS[name]}"), name)
