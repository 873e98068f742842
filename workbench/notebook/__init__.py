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
from workbench.notebook.runs import Run, RunList, annotate, attach, evaluate, generate, get, launch, runs
from workbench.notebook.serving import chat, steer

if TYPE_CHECKING:
    from workbench.notebook.widgets.chat import Chat
    from workbench.notebook.widgets.compare import Compare
    from workbench.notebook.widgets.data_preview import DataPreview
    from workbench.notebook.widgets.live_run import LiveRun
    from workbench.notebook.widgets.rollouts import Rollouts
    from workbench.notebook.widgets.run_form import RunForm
    from workbench.notebook.widgets.sliders import AttributeSliders

WIDGETS = {
    "AttributeSliders": "sliders",
    "Chat": "chat",
    "Compare": "compare",
    "DataPreview": "data_preview",
    "LiveRun": "live_run",
    "Rollouts": "rollouts",
    "RunForm": "run_form",
}
"""By name the file of each; loaded when it is asked for, as only a notebook has ipywidgets."""
__all__ = [
    "AttributeSliders",
    "Chat",
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
    "annotate",
    "attach",
    "chat",
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
    "steer",
]


def __getattr__(name: str) -> object:
    if name not in WIDGETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"workbench.notebook.widgets.{WIDGETS[name]}"), name)
