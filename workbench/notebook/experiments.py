"""`wb.Experiment`: what a run is to be, set up in a few lines."""

from __future__ import annotations

import html
from collections.abc import Mapping

import yaml

from workbench.backends.base import Config as Backend
from workbench.settings import AlgorithmConfig, Checkpoint, Data, JobConfig, Model, Rollout, Validation, Watch, command_line, composing, spec
from workbench.settings.composing import SpecError
from workbench.views import pictures

Settings = Mapping[str, object] | str | int | float | bool | None
FIRST = ("job", "algorithm", "model", "data", "backend")
"""The sections that a picture of an experiment begins with."""
NAMED = ("job", "algorithm", "backend")
"""The sections that are a choice with settings of its own."""


class Experiment:
    """Everything a run is: checked when it is made, and never changed.

    Args:
        experiment: a file of conf/experiment to start from, as in `workbench run experiment=…`; the project's defaults without one.
        settings: a section's settings as a mapping, a choice of conf/ by its name, or `name` and `seed`.

    Raises:
        SpecError: a ValueError with every wrong setting at once; an unknown one names the nearest there is.

    >>> import workbench as wb
    >>> experiment = wb.Experiment("dpo_demo", algorithm={"beta": 0.2, "max_steps": 10}, name="first try")
    >>> experiment.algorithm.max_steps, experiment.model.source
    (10, 'smollm2-135m-instruct')
    >>> experiment.but(seed=3).seed
    3
    >>> wb.Experiment("dpo_demo", algorithm={"betta": 0.2})
    Traceback (most recent call last):
    workbench.settings.composing.SpecError: algorithm.betta: there is no such key; did you mean 'beta'?; ...
    """

    def __init__(self, experiment: str | None = None, /, **settings: Settings) -> None:
        self._given: dict[str, Settings] = dict(settings)
        self._base = experiment
        self._overrides, changes = _split(experiment, settings)
        self._spec = spec.parse(_merged(command_line.composed(tuple(self._overrides)), changes))

    @property
    def spec(self) -> spec.Experiment:
        """The typed, resolved settings."""
        return self._spec

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def seed(self) -> int:
        return self._spec.seed

    @property
    def job(self) -> JobConfig:
        return self._spec.job

    @property
    def algorithm(self) -> AlgorithmConfig:
        return self._spec.algorithm

    @property
    def model(self) -> Model:
        return self._spec.model

    @property
    def data(self) -> Data:
        return self._spec.data

    @property
    def validation(self) -> Validation:
        return self._spec.validation

    @property
    def checkpoint(self) -> Checkpoint:
        return self._spec.checkpoint

    @property
    def rollout(self) -> Rollout:
        return self._spec.rollout

    @property
    def watch(self) -> Watch:
        return self._spec.watch

    @property
    def backend(self) -> Backend:
        return self._spec.backend

    def but(self, **settings: Settings) -> Experiment:
        """The same with other settings. Raises SpecError as the constructor does."""
        return Experiment(self._base, **{name: _both(self._given.get(name), value) for name, value in {**self._given, **settings}.items()})

    @property
    def command(self) -> str:
        """The command line that launches the same: `workbench run …`."""
        return command_line.command(self._overrides, self._spec.model_dump(mode="json"))

    def to_yaml(self) -> str:
        """The settings that the job reads, as a run's folder keeps them."""
        return command_line.as_yaml(self._spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and self._spec == other._spec

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        given = [repr(self._base)] if self._base else []
        return f"Experiment({', '.join([*given, *(f'{name}={value!r}' for name, value in self._given.items())])})"

    def _repr_html_(self) -> str:
        given = {key for key, _ in composing.leaves(dict(self._given))}
        tree = command_line.read_by_its_job(self._spec.model_dump(mode="json"))
        default = dict(composing.leaves(spec.filled({name: {"name": tree[name]["name"]} for name in NAMED if name in tree} | {"data": {}})))
        sections = {name: tree[name] for name in (*FIRST, *tree) if name in tree}
        rows = [
            {"setting": pictures.Html(f"<b>{html.escape(key)}</b>") if key in given else key, "value": value}
            for key, value in composing.leaves(sections)
            if key in given or key.endswith(".name") or key not in default or default[key] != value
        ]
        shown = pictures.table(rows, "What differs from the defaults; what you set is bold.")
        every = (
            f"<details><summary>every setting</summary><pre>{html.escape(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))}</pre></details>"
        )
        command = f"<pre style='white-space:pre-wrap'>{html.escape(self.command)}</pre>"
        return f"<b>Experiment {html.escape(self.name)}</b>{shown}{command}{every}"


def _split(experiment: str | None, settings: Mapping[str, Settings]) -> tuple[list[str], dict[str, object]]:
    """The choices as overrides of the command line, and what changes in the tree that they give."""
    overrides = [f"experiment={experiment}"] if experiment else []
    changes: dict[str, object] = {}
    for name, value in settings.items():
        known = name in composing.groups()
        chosen = value if isinstance(value, str) else value.get("name") if isinstance(value, Mapping) else None
        if known and name != "experiment" and isinstance(chosen, str) and (isinstance(value, str) or chosen in composing.choices(name)):
            overrides.append(f"{name}={chosen}")
        if not (known and isinstance(value, str)):
            changes[name] = value
    return overrides, changes


def _merged(tree: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    merged = dict(tree)
    for name, value in changes.items():
        here = merged.get(name)
        merged[name] = _merged(here, value) if isinstance(here, Mapping) and isinstance(value, Mapping) else value
    return merged


def _both(before: Settings, now: Settings) -> Settings:
    """Settings of one section, one after the other: a mapping adds to what was given for the same choice, anything else stands in its place."""
    if isinstance(before, str):
        before = {"name": before}
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return now
    another_choice = "name" in before and now.get("name", before["name"]) != before["name"]
    return now if another_choice else _merged(before, now)


def as_spec(experiment: Experiment | spec.Experiment | str, changes: Mapping[str, Settings] | None = None) -> spec.Experiment:
    """The typed settings of an experiment, of its name, or of one that was composed; with other settings where `changes` has some."""
    if isinstance(experiment, str):
        experiment = Experiment(experiment)
    if isinstance(experiment, spec.Experiment):
        tree = experiment.model_dump(mode="json")
        return spec.parse({**tree, **{name: _both(tree.get(name), value) for name, value in changes.items()}}) if changes else experiment
    return (experiment.but(**changes) if changes else experiment).spec


__all__ = ["Experiment", "SpecError", "as_spec"]
