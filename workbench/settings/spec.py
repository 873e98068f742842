"""The typed experiment, and the only reader of `conf/`.

YAML, form and command-line input become one frozen `Experiment` here. Hydra composes the files; pydantic checks every value. A key
that no field has is refused, and the message names the nearest one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, Field, SerializeAsAny, ValidationError, field_validator, model_validator

from backends import base as backends
from workbench.rundir.store import FORMAT
from workbench.settings import (
    WEIGHTS,
    AlgorithmConfig,
    Checkpoint,
    CheckpointJob,
    Data,
    Frozen,
    JobConfig,
    Model,
    Rollout,
    Validation,
    Watch,
    placement,
)
from workbench.settings.layout import check as check_layout
from workbench.settings.layout import known_shape
from workbench.settings.naming import module_names, nearest
from workbench.settings.online import Reward, reward_model
from workbench.settings.outputs import Outputs
from workbench.settings.sources import REPOSITORY, locate
from workbench.settings.upgrade import upgrade

CONF = REPOSITORY / "conf"
SHOWN = 80
NO_ALGORITHM = "none"
"""The algorithm's name in a job that has none."""


def algorithm_names() -> list[str]:
    """The algorithms there are: the files of workbench/algorithms/."""
    return module_names("algorithms")


def find_algorithm(name: str) -> Any:
    """The module `workbench.algorithms.<name>`. Importing it loads no torch.

    Raises:
        ValueError: no such algorithm; the message names the nearest and lists all.
    """
    if name not in algorithm_names():
        raise ValueError(f"unknown algorithm {name!r}{nearest(name, algorithm_names())}; there are: {', '.join(algorithm_names())}")
    return import_module(f"workbench.algorithms.{name}")


def outputs_of(algorithm: AlgorithmConfig) -> Outputs:
    """What the algorithm wants of the policy; log-probabilities where a job has none."""
    outputs: Outputs | Callable[[AlgorithmConfig], Outputs] = _find_algorithm_or_none(algorithm.name).OUTPUTS
    return outputs if isinstance(outputs, Outputs) else outputs(algorithm)


def job_names() -> list[str]:
    """The kinds of job there are: the files of workbench/processes/kinds/."""
    return module_names("processes/kinds")


def find_job(name: str) -> Any:
    """The module `workbench.processes.kinds.<name>`. Importing it loads no torch.

    Raises:
        ValueError: no such kind; the message names the nearest and lists all.
    """
    if name not in job_names():
        raise ValueError(f"unknown kind of job {name!r}{nearest(name, job_names())}; there are: {', '.join(job_names())}")
    return import_module(f"workbench.processes.kinds.{name}")


def _find_algorithm_or_none(name: str) -> Any:
    return _NO_ALGORITHM if name == NO_ALGORITHM else find_algorithm(name)


_NO_ALGORITHM = SimpleNamespace(Config=AlgorithmConfig, ROLES={}, OUTPUTS=Outputs(logprobs=True))
"""In the place of an algorithm's file, for a kind of job that has none."""


def _typed(find: Any, base: type[BaseModel]) -> BeforeValidator:
    """Turn a mapping with a `name` into the `Config` of the module that `find` gives for that name."""

    def parse(value: Any) -> Any:
        if isinstance(value, base):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError(f"expected a mapping with a name, got {value!r}")
        return find(value["name"]).Config(**value)

    return BeforeValidator(parse)


AnyAlgorithm = Annotated[SerializeAsAny[AlgorithmConfig], _typed(_find_algorithm_or_none, AlgorithmConfig)]
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
        check_layout(layout, world_size, known_shape(self.model.source) if world_size > 1 and not of_checkpoint else None)
        batch, ranks = self.algorithm.global_batch_size, world_size // layout.ranks
        if batch % ranks:
            raise ValueError(
                f"algorithm.global_batch_size={batch} is not divisible by the {ranks} data-parallel ranks; nearest: {max(1, batch // ranks) * ranks}"
            )
        return self

    @model_validator(mode="after")
    def _has_its_algorithm(self) -> Experiment:
        if "algorithm" in self.job.sections and self.algorithm.name == NO_ALGORITHM:
            raise ValueError(f"algorithm: job={self.job.name} needs one; there are: {', '.join(algorithm_names())}")
        return self

    @model_validator(mode="after")
    def _servers_fit(self) -> Experiment:
        placement.check_served(self.algorithm, self.model, _find_algorithm_or_none(self.algorithm.name).ROLES)
        if found := placement.problems(self.algorithm, self.model):
            raise ValueError("; ".join(found))
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
        model = self.model.model_copy(update={"source": _absolute(self.model.source)})
        return self.model_copy(update={"data": data, "model": model, "algorithm": self.algorithm.with_absolute_paths(_absolute)})

    def check_files(self) -> None:
        """Look whether what the settings name is there, before anything is launched: functions, and for a run here data, model and PyTriton.

        Nothing of the user's is run. For a run elsewhere `preflight` looks at the files.

        Raises:
            SpecError: with all that is not; the message names the nearest there is.
        """
        found = [(f"algorithm.{key}", what) for key, what in self.algorithm.problems()]
        if found := [*found, *(_missing_here(self) if self.backend.name == "local" else ())]:
            raise SpecError(found)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str, format: int = FORMAT) -> Experiment:
        """As `to_yaml` wrote it into a run folder of this format. Raises SpecError as `parse` does."""
        return parse(upgrade(yaml.safe_load(text), format))


class SpecError(ValueError):
    """A setting is wrong. `problems` holds one (dotted key, what is wrong) a line of the message."""

    def __init__(self, problems: Sequence[tuple[str, str]]):
        self.problems = list(problems)
        super().__init__("\n".join(f"{key}: {what}" if key else what for key, what in self.problems))


def parse(tree: dict[str, Any]) -> Experiment:
    """A plain mapping, checked.

    Raises:
        SpecError: with every wrong key at once; an unknown key names the nearest one.
    """
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise SpecError([_explain(dict(e), tree) for e in error.errors()]) from None


def filled(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with every default in its place, unchecked: also one that lacks what only its owner knows, as the reward of a PPO."""
    return _filled(Experiment, tree)


def _filled(model: type[BaseModel], tree: dict[str, Any]) -> dict[str, Any]:
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


def _part(name: str, annotation: Any, tree: dict[str, Any]) -> type[BaseModel] | None:
    """The settings below a field, if any; for the algorithm and the backend those that their name gives."""
    finders = {"job": find_job, "algorithm": _find_algorithm_or_none, "backend": backends.find}
    if name in finders and "name" in tree.get(name, ()):
        return finders[name](tree[name]["name"]).Config
    found = next((part for part in _types(annotation) if issubclass(part, BaseModel)), None)
    return reward_model() if found is Reward else found


def _types(annotation: Any) -> Iterator[type]:
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
"""What a resume may change: where and in which layout a run goes on, not what it computes."""


def changed(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """The experiment of a run that goes on with other settings: `model.tensor_parallel=1 backend.ranks_per_node=4`.

    Raises:
        SpecError: a setting that a resume may not change, or a value out of bounds.
    """
    return overridden(experiment.model_dump(mode="json"), overrides, RESUMABLE, refused="a resume cannot change it; it can change")


def overridden(
    tree: dict[str, Any], overrides: Sequence[str], allowed: Sequence[str], refused: str = "it cannot be set here; these can be"
) -> Experiment:
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
        branch[last] = yaml.safe_load(value)
    return parse(tree)


def compose_tree(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """As `compose`, before the check: what a form starts from.

    What an experiment sets in a group is meant for its own choice there: `experiment=dpo_demo algorithm=sft` has none of DPO's settings.
    """
    words = _hydra_words(overrides)
    tree, choice = _hydra(words)
    experiment = [word for word in words if word.startswith("experiment=")]
    if experiment and any(word.partition("=")[0] in groups() for word in words if word not in experiment):
        own = _hydra(experiment)[1]
        without = _hydra([word for word in words if word not in experiment])[0]
        tree |= {group: without[group] for group in own if group in tree and own[group] != choice[group]}
    return _without_what_the_job_does_not_read(tree, words)


def _without_what_the_job_does_not_read(tree: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The algorithm that every run starts from is none of a job's that has no algorithm, unless it was named."""
    sections = find_job(tree.get("job", {}).get("name", "train")).Config.sections
    if "algorithm" not in sections and not any(word.startswith("algorithm=") for word in words):
        tree.pop("algorithm", None)
    return tree


def _hydra_words(overrides: Sequence[str]) -> list[str]:
    """The overrides in Hydra's grammar. Raises SpecError for a word that is none, and for a choice that is not there."""
    words = []
    for override in overrides:
        key = override.partition("=")[0]
        if "=" not in override and not override.startswith("~"):
            raise SpecError([(override, "expected key=value")])
        if key in groups() and (choice := override.partition("=")[2]) not in choices(key):
            raise SpecError([(key, f"there is no {choice!r}{nearest(choice, choices(key))}; there are: {', '.join(choices(key))}")])
        # A default lives in the typed field, not in YAML, so a value override may name a key that the YAML does not have.
        words.append(override if key in groups() or key[:1] in "+~" else f"++{override}")
    return words


def _hydra(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The composed tree, and which choice each group has in it."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", list(words), return_hydra_config=True)
        choice = {group: name for group, name in config.hydra.runtime.choices.items() if group in groups()}
        del config.hydra  # before the interpolations are resolved: Hydra's own refer to a job that there is not
        return OmegaConf.to_container(config, resolve=True), choice  # type: ignore[return-value]
    except OverrideParseException as error:
        key, _, value = error.override.lstrip("+~").partition("=")
        raise SpecError([(key, f"{_shown(value)} is no value; a text goes in quotes: '{key}=\"…\"'")]) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise SpecError([("", str(error))]) from None


def groups() -> list[str]:
    """The folders of conf/: what can be chosen by name."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


def choices(group: str) -> list[str]:
    """The choices of one group: its YAML files."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def overrides_between(start: dict[str, Any], end: dict[str, Any]) -> list[str]:
    """The `key=value` words that turn one tree into another: the command line that a form's settings equal."""
    was, now = dict(_leaves(start)), dict(_leaves(end))
    return [f"{key}={_hydra_value(value)}" for key, value in now.items() if key not in was or was[key] != value]


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
    if placement.servers(experiment.algorithm, experiment.model) and not find_spec("pytriton"):
        yield "algorithm.served", "servers need PyTriton: pip install -c constraints.txt nvidia-pytriton; or have none: algorithm.served=[]"


def _absolute(source: str) -> str:
    """A hub id, and what comes with the project, stay as they are."""
    if not _is_there(source) or (CONF.parent / source).exists():
        return source
    return str(Path(source).expanduser().resolve())


def _is_there(source: str) -> bool:
    try:
        return Path(source).expanduser().exists()
    except (OSError, RuntimeError):  # too long for a path, or below the home of a user who is not there
        return False


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, list(tree) if isinstance(tree, tuple) else tree


def quoted(text: str) -> str:
    """A text as a word of the command line has it."""
    return _hydra_value(text)


def _hydra_value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(_hydra_value(item) for item in value)}]"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", value):
        literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # no interpolation
        quoted = re.sub(r"(\\*)'", r"\1\1\\'", literal)
        return "'" + re.sub(r"(\\+)\Z", r"\1\1", quoted) + "'"
    if isinstance(value, str) and value.lower() in ("null", "true", "false", "nan", "inf"):
        return f"'{value}'"
    return str(value)


def _explain(error: dict[str, Any], tree: dict[str, Any]) -> tuple[str, str]:
    """One pydantic error as (dotted key, what was expected and what was found)."""
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        known = _known_keys(path[:-1], tree)
        return key, f"there is no such key{nearest(path[-1], known)}; {'.'.join(path[:-1]) or 'the experiment'} has: {', '.join(known)}"
    if error["type"] == "missing":
        return key, "is required"
    message = error["msg"].removeprefix("Value error, ")
    return key, f"{message[:1].lower()}{message[1:]}" + ("" if isinstance(error["input"], dict | BaseModel) else f" (got {_shown(error['input'])})")


def _shown(value: Any) -> str:
    """A value in a message: its beginning where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… of {len(text):,} characters"


def _known_keys(path: Sequence[str], tree: dict[str, Any]) -> list[str]:
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
