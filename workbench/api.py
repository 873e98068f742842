"""The facade of the app, the notebooks and the command line: submit, list, stop, resume, read.

>>> run = submit(compose(["experiment=dpo_demo"]))
>>> run.status.state, run.stop()
"""

from workbench.backends.base import Finding
from workbench.data.changes import Changes, as_columns
from workbench.data.check import CheckReport, Piece, Sample
from workbench.data.check import Page as DataPage
from workbench.data.formats import SCHEMAS, Pairs
from workbench.data.readers import Kind, locate
from workbench.jobs.checkpoints import on_checkpoint, with_checkpoint
from workbench.jobs.data import TIMEOUT_S as CHECK_TIMEOUT_S
from workbench.jobs.data import as_template_kwargs, browse_data, check_data
from workbench.jobs.launch import keep_warm, preflight, script
from workbench.jobs.of_checkpoints import annotate, evaluate, generate
from workbench.jobs.pipelines import Pipeline, PipelineStatus, StageStatus, pipeline, stage_of, submit_pipeline
from workbench.jobs.pipelines import list_pipelines as pipelines
from workbench.jobs.plans import composed as compose_pipeline
from workbench.jobs.problems import Problem
from workbench.jobs.runs import Run, cluster, get, runs, submit
from workbench.jobs.served import Serving, reach, serve_or_find, serving, until_serving, with_targets
from workbench.jobs.serving import endpoint, endpoints, serve
from workbench.jobs.sources import SourceCheck, check_sources
from workbench.jobs.steering import adherence
from workbench.machines.usage import Allocation, Cluster, Where, places
from workbench.rundir.listing import runs_root
from workbench.rundir.opening import ReadOnly, Unreadable
from workbench.settings.composing import SpecError
from workbench.settings.sources import cache_root
from workbench.settings.spec import Experiment, compose
from workbench.steering.asking import Answers, Question
from workbench.steering.presets import presets, remove_preset, save_preset
from workbench.steering.rules import RULES
from workbench.steering.served import Served

__all__ = [
    "CHECK_TIMEOUT_S",
    "Allocation",
    "Answers",
    "Changes",
    "CheckReport",
    "Cluster",
    "DataPage",
    "Experiment",
    "Finding",
    "Kind",
    "Pairs",
    "Piece",
    "Pipeline",
    "PipelineStatus",
    "Problem",
    "Question",
    "RULES",
    "ReadOnly",
    "Run",
    "SCHEMAS",
    "Sample",
    "Served",
    "Serving",
    "SourceCheck",
    "SpecError",
    "StageStatus",
    "Unreadable",
    "Where",
    "adherence",
    "annotate",
    "as_columns",
    "as_template_kwargs",
    "browse_data",
    "check_data",
    "check_sources",
    "cluster",
    "compose",
    "compose_pipeline",
    "endpoint",
    "endpoints",
    "evaluate",
    "generate",
    "get",
    "keep_warm",
    "locate",
    "on_checkpoint",
    "pipeline",
    "pipelines",
    "places",
    "preflight",
    "presets",
    "reach",
    "remove_preset",
    "runs",
    "cache_root",
    "runs_root",
    "save_preset",
    "script",
    "stage_of",
    "serve",
    "serve_or_find",
    "serving",
    "submit",
    "submit_pipeline",
    "until_serving",
    "with_checkpoint",
    "with_targets",
]
