"""What a pipeline is, resolved: the stages with their settings and the ids of their runs, as `pipeline.yaml` in its folder keeps them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.jobs import launch
from workbench.jobs.checkpoints import with_expected_checkpoint
from workbench.rundir import listing, opening, store
from workbench.rundir.opening import Unreadable
from workbench.rundir.pipelines import SPEC, PipelineDir
from workbench.rundir.store import FORMAT
from workbench.settings import pipeline as pipelines
from workbench.settings import plain
from workbench.settings.composing import SpecError
from workbench.settings.pipeline import Pipeline, Stage
from workbench.settings.spec import Experiment, parse
from workbench.settings.upgrade import upgrade


class PlannedStage(BaseModel):
    """A stage: its run's id, the stages whose outputs it uses, those outputs as they stand in its settings, the words that gave them, the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    needs: tuple[str, ...]
    uses: tuple[str, ...]
    overrides: tuple[str, ...]
    settings: dict[str, Any]


class Plan(BaseModel):
    """`pipeline.yaml`: the stages in an order in which each comes after those that it needs. `format` is that of run folders (`rundir.store.FORMAT`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    name: str
    description: str
    created: float
    stages: dict[str, PlannedStage]

    def experiment(self, stage: str) -> Experiment:
        """Raises SpecError where this version does not have the stage's settings."""
        return parse(upgrade(self.stages[stage].settings, self.format))

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read(folder: PipelineDir) -> Plan:
    """The plan of a pipeline's folder. Raises Unreadable: missing, damaged, or made by a newer version."""
    path = folder.path / SPEC
    try:
        return _read(path, opening.stat(path).st_mtime_ns)
    except FileNotFoundError:
        raise Unreadable(path, "missing") from None


@lru_cache(maxsize=256)
def _read(path: Path, _changed_ns: int) -> Plan:
    try:
        tree = plain.load_mapping(opening.read_text(path))
        if isinstance(made := tree.get("format"), int) and made > FORMAT:
            raise Unreadable(path, f"made by a newer version (format {made}; this one reads up to {FORMAT})")
        return Plan.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Unreadable(path, f"no pipeline: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable(path, str(error)) from None


def composed(name: str, overrides: Sequence[str] = ()) -> list[Stage]:
    """The stages of a pipeline as typed experiments, with words for all or for one of them; what a stage needs that another makes counts as there.

    Raises:
        SpecError: no such pipeline, a wrong word or setting, or what a stage needs is not there; each problem's key begins with its stage.
    """
    pipeline, root = pipelines.with_overrides(pipelines.read(name), overrides), listing.runs_root()
    return _checked(pipeline, root)


def plan(name: str, overrides: Sequence[str] = ()) -> Plan:
    """As `composed`, as it is launched."""
    pipeline, root = pipelines.with_overrides(pipelines.read(name), overrides), listing.runs_root()
    stages = {
        stage.name: PlannedStage(
            run=stage.run_id,
            needs=stage.needs,
            uses=stage.uses,
            overrides=stage.overrides,
            settings=stage.experiment.model_dump(mode="json"),
        )
        for stage in _checked(pipeline, root)
    }
    return Plan(format=FORMAT, name=pipeline.name, description=pipeline.description, created=time.time(), stages=stages)


def _checked(pipeline: Pipeline, root: Path) -> list[Stage]:
    """The stages, each checked as a run is before its launch. Raises SpecError with the problems of all stages."""
    ids = {stage: store.new_run_id(f"{pipeline.name[:20]} {stage}") for stage in pipeline.stages}
    made: dict[str, Stage] = {}
    problems: list[tuple[str, str]] = []
    for stage in pipelines.compose(pipeline, ids, root):
        try:
            made[stage.name] = _with_model(stage, made)
            launch.checked(made[stage.name].experiment, made[stage.name].uses)
        except SpecError as error:
            made.setdefault(stage.name, stage)
            problems += [(f"{stage.name}.{key}" if key else stage.name, what) for key, what in error.problems]
    if problems:
        raise SpecError(problems)
    return list(made.values())


def _with_model(stage: Stage, others: Mapping[str, Stage]) -> Stage:
    """Of a stage on another's checkpoint with the model that it will be of."""
    of = pipelines.checkpoint_of(stage, others)
    if of is None:
        return stage
    source = tuple(use for use in of.uses if use == of.experiment.model.source)  # an export of a third stage, which is to come as well
    return replace(stage, experiment=with_expected_checkpoint(stage.experiment, of.experiment), uses=(*stage.uses, *source))
