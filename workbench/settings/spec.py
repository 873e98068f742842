"""The typed experiment, and the only reader of `conf/`.

YAML, form and command-line input become one frozen `Experiment` here. Hydra composes the files; pydantic checks every value. A key
that no field has is refused, and the message names the nearest one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Protocol, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, Field, SerializeAsAny, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from workbench.backends import base as backends
from workbench.rundir.store import FORMAT
from workbench.settings import (
    WEIGHTS,
    AlgorithmConfig,
    Checkpoint,
    CheckpointJob,
    CheckpointsJob,
    Data,
    Frozen,
    JobConfig,
    Model,
    Rollout,
    Validation,
    Watch,
    best,
    functions,
    placement,
    plain,
    shipped,
)
from workbench.settings.composing import SHOWN, SpecError, compose_tree, shown
from workbench.settings.layout import check as check_layout
from workbench.settings.layout import known_shape
from workbench.settings.modules import NO_ALGORITHM, algorithm_names, find_algorithm_or_none, find_job
from workbench.settings.naming import nearest
from workbench.settings.online import Reward, reward_model
from workbench.settings.sources import EMBEDDED, EMBEDDED_MISSING, embedded_model, locate
from workbench.settings.upgrade import Tree, upgrade


class _Module(Protocol):
    """What is found by a name: the file of an algorithm, a job or a backend."""

    @property
    def Config(self) -> type[BaseModel]: ...


def _typed(find: Callable[[str], _Module], base: type[BaseModel]) -> BeforeValidator:
    """Turn a mapping with a `name` into the `Config` of the module that `find` gives for that name."""

    def parse(value: object) -> BaseModel:
        if isinstance(value, base):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError(f"expected a mapping with a name, got {value!r}")
        return find(value["name"]).Config(**value)

    return BeforeValidator(parse)


AnyAlgorithm = Annotated[SerializeAsAny[AlgorithmConfig], _typed(find_algorithm_or_none, AlgorithmConfig)]
AnyJob = Annotated[SerializeAsAny[JobConfig], _typed(find_job, JobConfig)]
AnyBackend = Annotated[SerializeAsAny[backends.Config], _typed(backends.find, backends.Config)]


class Experiment(Frozen):
    """Everything a run is: `runs/<id>/spec.yaml` holds one, resolved and immutable."""

    name: str = Field(default="run", min_length=1, max_length=80, description="A name for people; the run's id is made from it.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the data order, of dropout and of draws.")
    job: AnyJob = Field(default={"name": "train"}, validate_default=True)
    algorithm: AnyAlgorithm = AlgorithmConfig(name=NO_ALGORITHM)
    model: Model = Model()
    data: Data
    validation: Validation = Validation()
    checkpoint: Checkpoint = Checkpoint()
    rollout: Rollout = Rollout()
    watch: Watch = Watch()
    backend: AnyBackend

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("a name has printable characters only")
        return name

    @model_validator(mode="after")
    def _fits_ranks(self) -> Experiment:
        layout, world_size = self.model.layout, self.backend.world_size
        # The model of a job on a checkpoint is the checkpoint's: `jobs.checkpoints` looks whether the layout fits it.
        of_checkpoint = isinstance(self.job, CheckpointJob) and self.job.checkpoint is not None
        of_checkpoint = of_checkpoint or (isinstance(self.job, CheckpointsJob) and bool(self.job.checkpoints))
        check_layout(layout, world_size, known_shape(self.model.source) if world_size > 1 and not of_checkpoint else None)
        batch, ranks = self.algorithm.global_batch_size, world_size // layout.ranks
        if batch % ranks:
            raise ValueError(
                f"algorithm.global_batch_size={batch} is not divisible by the {ranks} data-parallel ranks; nearest: {max(1, batch // ranks) * ranks}"
            )
        return self

    @model_validator(mode="after")
    def _fits_its_job(self) -> Experiment:
        most = self.job.most_ranks
        if most is not None and self.backend.world_size > most:
            raise ValueError(
                f"job={self.job.name} runs in {most} process{'es' * (most > 1)}, and backend.num_nodes x backend.ranks_per_node is {self.backend.world_size}"
            )
        return self

    @model_validator(mode="after")
    def _has_its_algorithm(self) -> Experiment:
        if "algorithm" in self.job.sections and self.algorithm.name == NO_ALGORITHM:
            raise ValueError(f"algorithm: job={self.job.name} needs one; there are: {', '.join(algorithm_names())}")
        return self

    @model_validator(mode="after")
    def _best_can_be_told(self) -> Experiment:
        best.check(self)
        return self

    @model_validator(mode="after")
    def _samples_in_time(self) -> Experiment:
        ahead, algorithm = self.rollout.max_staleness, self.algorithm
        if ahead and getattr(algorithm, "max_tokens", 0) and "reward" not in find_algorithm_or_none(algorithm.name).ROLES:
            raise ValueError(
                f"rollout.max_staleness={ahead}: algorithm={algorithm.name} learns from answers of weights that stand still meanwhile; set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _servers_fit(self) -> Experiment:
        placement.check_served(self.algorithm, self.model, find_algorithm_or_none(self.algorithm.name).ROLES)
        if problems := placement.problems(self.algorithm, self.model):
            raise ValueError("; ".join(problems))
        return self

    def settled(self, has_gpus: bool) -> Experiment:
        """With what was left open decided; `has_gpus` is about this machine."""
        algorithm = placement.settled(self.algorithm, self.backend.name == "local", has_gpus)
        return self.model_copy(update={"algorithm": algorithm})

    def with_absolute_paths(self) -> Experiment:
        """The same, with each file of the user's named from the root: a resume from another folder finds it too."""
        data = self.data.model_copy(
            update={key: value and _absolute(value) for key in ("train", "validation") for value in [getattr(self.data, key)]}
        )
        if data.map:
            data = data.model_copy(update={"map": functions.with_absolute_path(data.map, _absolute)})
        model = self.model.model_copy(update={"source": _absolute(self.model.source)})
        job, algorithm = self.job.with_absolute_paths(_absolute), self.algorithm.with_absolute_paths(_absolute)
        return self.model_copy(update={"data": data, "model": model, "job": job, "algorithm": algorithm})

    def check_files(self) -> None:
        """Look whether what the settings name is there, before anything is launched: functions, and for a run here data, model and PyTriton.

        Nothing of the user's is run. For a run elsewhere `preflight` looks at the files.

        Raises:
            SpecError: with all that is not; the message names the nearest there is.
        """
        problems = [(f"job.{key}", what) for key, what in self.job.problems()]
        problems += [(f"algorithm.{key}", what) for key, what in self.algorithm.problems()]
        problems += [("data.map", what) for what in functions.problems(self.data.map, functions.MAP)] if self.data.map else []
        if problems := [*problems, *(_missing_here(self) if self.backend.name == "local" else ())]:
            raise SpecError(problems)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str, format: int = FORMAT) -> Experiment:
        """As `to_yaml` wrote it into a run folder of this format. Raises SpecError as `parse` does, and ValueError for no YAML."""
        return parse(upgrade(plain.load_mapping(text), format))


def parse(tree: Tree) -> Experiment:
    """A plain mapping, checked.

    Raises:
        SpecError: with every wrong key at once; an unknown key names the nearest one.
    """
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise SpecError([_explain(e, tree) for e in error.errors()]) from None


def filled(tree: Tree) -> Tree:
    """The tree with every default in its place, unchecked: also one that lacks what only its owner knows, as the reward of a PPO."""
    return _filled(Experiment, tree)


def _filled(model: type[BaseModel], tree: Tree) -> Tree:
    values = {}
    for name, info in model.model_fields.items():
        default = {} if info.is_required() else info.get_default(call_default_factory=True)
        value, part = tree.get(name, default), _part(name, info.annotation, tree)
        if isinstance(value, BaseModel):
            value = value.model_dump()
        if part and isinstance(value, dict):
            by_name = get_origin(info.annotation) is dict
            value = {key: _filled(part, item) for key, item in value.items()} if by_name else _filled(part, value)
        if (name in tree or not info.is_required()) and not (value is None and getattr(model, "sparse", False)):
            values[name] = list(value) if isinstance(value, tuple) else value
    return values


def _part(name: str, annotation: object, tree: Tree) -> type[BaseModel] | None:
    """The settings below a field, if any; for the algorithm and the backend those that their name gives."""
    finders: dict[str, Callable[[str], _Module]] = {"job": find_job, "algorithm": find_algorithm_or_none, "backend": backends.find}
    if name in finders and "name" in tree.get(name, ()):
        return finders[name](tree[name]["name"]).Config
    match = next((part for part in _types(annotation) if issubclass(part, BaseModel)), None)
    return reward_model() if match is Reward else match


def _types(annotation: object) -> Iterator[type]:
    """The classes that an annotation is made of, from the outside in."""
    if isinstance(annotation, type):
        yield annotation
    for part in get_args(annotation):
        yield from _types(part)


def compose(overrides: Sequence[str] = ()) -> Experiment:
    """The experiment that `conf/` and the overrides give, in Hydra's grammar: `algorithm=dpo algorithm.beta=0.3`.

    Raises:
        SpecError: an unknown group choice or key, or a value out of bounds.
    """
    return parse(compose_tree(overrides))


RESUMABLE = ("backend", "validation", "checkpoint", "watch", *(f"model.{name}" for name in Model.model_fields if name not in WEIGHTS))
"""What a resume may change: where and in which layout a run continues, not what it computes."""


def changed(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """The experiment of a run that continues with other settings: `model.tensor_parallel=1 backend.ranks_per_node=4`.

    Raises:
        SpecError: a setting that a resume may not change, or a value out of bounds.
    """
    return overridden(experiment.model_dump(mode="json"), overrides, RESUMABLE, refused="a resume cannot change it; it can change")


def overridden(tree: Tree, overrides: Sequence[str], allowed: Sequence[str], refused: str = "it cannot be set here; these can be") -> Experiment:
    """The experiment of a resolved tree with some `key=value` of the allowed keys, and of those below them. `refused` begins what is said of others.

    Raises:
        SpecError: another key, or a value out of bounds.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise SpecError([(override, "expected key=value")])
        if not any(key == name or key.startswith(f"{name}.") for name in allowed) or key.startswith("backend.name"):
            raise SpecError([(key, f"{refused}: {', '.join(allowed)}")])
        *path, last = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = _value(key, value)
    return parse(tree)


def _value(key: str, text: str) -> object:
    try:
        return plain.load(text)
    except ValueError as error:
        raise SpecError([(key, f"{shown(text)} is not a valid value: {error}")]) from None


def _missing_here(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """What a run on this machine would not find, by key."""
    for key in ("train", "validation"):
        try:
            if source := getattr(experiment.data, key):
                locate(source)
        except ValueError as error:
            yield f"data.{key}", str(error)
    source = experiment.model.source
    if source.startswith((".", "/", "~")) and not _is_there(source):
        yield "model.source", f"there is no directory or file {source[:SHOWN]}"
    if source == EMBEDDED and embedded_model() is None:
        yield "model.source", EMBEDDED_MISSING
    if placement.servers(experiment.algorithm, experiment.model) and not find_spec("pytriton"):
        yield "algorithm.served", f"servers need PyTriton: {shipped.pip_install('nvidia-pytriton')}; or have none: algorithm.served=[]"


def _absolute(source: str) -> str:
    """A hub id, and what comes with the project, stay as they are."""
    if not _is_there(source):
        return source
    path, own = Path(source).expanduser(), shipped.find(source)
    return source if own and own.samefile(path) else str(path.resolve())


def _is_there(source: str) -> bool:
    try:
        return Path(source).expanduser().exists()
    except (OSError, RuntimeError):  # too long for a path, or below the home of a user who is not there
        return False


def _explain(error: ErrorDetails, tree: Tree) -> tuple[str, str]:
    """One pydantic error as (dotted key, what was expected and what was found)."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        known = _known_keys(path[:-1], tree)
        return key, f"there is no such key{nearest(path[-1], known)}; {'.'.join(path[:-1]) or 'the experiment'} has: {', '.join(known)}"
    if error["type"] == "missing":
        return key, "is required"
    message = error["msg"].removeprefix("Value error, ")
    return key, f"{message[:1].lower()}{message[1:]}" + ("" if isinstance(error["input"], dict | BaseModel) else f" (got {shown(error['input'])})")


def _known_keys(path: Sequence[str], tree: Tree) -> list[str]:
    model: type[BaseModel] = Experiment
    by_name = False
    for part in path:
        if by_name:  # the name of one of several, as of a reward
            by_name = False
        else:
            annotation = model.model_fields[part].annotation
            model, by_name = _part(part, annotation, tree) or model, get_origin(annotation) is dict
        tree = tree.get(part, {}) if isinstance(tree, dict) else {}
    return list(model.model_fields)
