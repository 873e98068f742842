"""A process that only reads: every function that changes something refuses, and none is missing from the list."""

import inspect

import pytest

from workbench import api
from workbench.jobs import data, export, launch
from workbench.jobs.runs import Run
from workbench.rundir import permission, store
from workbench.rundir.store import RunDir

CHANGES = {
    *(api.submit_pipeline, api.Pipeline.stop, api.Pipeline.resume, api.save_preset, api.remove_preset),
    *(api.submit, api.preflight, api.check_data, api.browse_data, api.keep_warm),
    *(Run.stop, Run.change, Run.pause, Run.unpause, Run.kill, Run.resume),
    *(launch.start, launch.resume, launch.launch, export.export, data.check_data, store.create, RunDir.request),
}
THROUGH_SUBMIT = {api.annotate, api.evaluate, api.generate, api.serve, api.serve_or_find}
READS = {
    api.adherence,
    api.as_columns,
    api.as_template_kwargs,
    api.cache_root,
    api.check_sources,
    api.cluster,
    api.compose,
    api.compose_pipeline,
    api.endpoint,
    api.endpoints,
    api.get,
    api.locate,
    api.on_checkpoint,
    api.pipeline,
    api.pipelines,
    api.places,
    api.presets,
    api.reach,
    api.runs,
    api.runs_root,
    api.script,
    api.serving,
    api.stage_of,
    api.until_serving,
    api.with_checkpoint,
    api.with_targets,
}
READS |= {Run.events, Run.problems, Run.servers, Run.logs, Run.log_tail, Run.wait}


@pytest.fixture
def reading_only(monkeypatch):
    monkeypatch.setattr(permission, "_reason", "")
    permission.only_read("only to be read")


@pytest.mark.parametrize("function", sorted(CHANGES, key=lambda function: function.__qualname__), ids=lambda function: function.__qualname__)
def test_what_changes_something_refuses(function, reading_only):
    wanted = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    with pytest.raises(PermissionError, match="only to be read"):
        function(*(None for _ in wanted))


def test_each_function_of_the_facade_is_known_to_read_or_to_change():
    facade = {getattr(api, name) for name in api.__all__ if inspect.isfunction(getattr(api, name))}
    methods = {each for name, each in inspect.getmembers(Run, inspect.isfunction) if not name.startswith("_")}
    assert facade | methods <= CHANGES | READS | THROUGH_SUBMIT


def test_jobs_on_checkpoints_go_through_submit(reading_only, tiny_model, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a"}\n')
    with pytest.raises(PermissionError, match="only to be read"):
        api.generate(str(tiny_model), str(prompts))
