"""Pipelines: jobs in sequence that use each other's outputs by name. A pipeline is one YAML, `conf/pipeline/<name>.yaml` or a file of the user's own.

    description: one line for people
    stages:
      train: [experiment=dpo_demo]                                        # the words of `workbench run`
      export: [job=export, "job.checkpoint=${train.checkpoint}"]          # an output of another stage

An output is a path or a run's id, which are known before anything runs: the ids of all runs are made first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import Field, ValidationError

from workbench.settings import composing, plain
from workbench.settings.command_line import sections_of
from workbench.settings.composing import SpecError, compose_tree, quoted
from workbench.settings.naming import nearest
from workbench.settings.sections import CheckpointJob, Frozen
from workbench.settings.shipped import CONF
from workbench.settings.spec import Experiment, parse

FOLDER = CONF / "pipeline"
ENDINGS = (".yaml", ".yml")
GENERAL = ("name", "seed")
"""Settings of an experiment that are in no section."""
CHECKPOINT, RUN = "checkpoint", "run"
"""Outputs that are no file in the run's folder: the run's id, which names its newest checkpoint, and the folder itself."""
UNTIL = "until"
"""The word of the command line that leaves out what comes after a stage."""
ONE_STAGES = ("experiment", "job")
"""Choices that are never all stages'."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_WORD = re.compile(r"(?P<sign>[+~]*)(?P<key>[^=]*)(?P<value>(=.*)?)", re.DOTALL)
_REFERENCE = re.compile(r"(?P<quote>['\"]?)(?<!\\)\$\{(?P<name>[^{}]*)\}(?P<rest>[\w./:-]*)(?P=quote)")


class _File(Frozen):
    """The YAML of a pipeline."""

    description: str = ""
    stages: dict[str, tuple[str, ...]] = Field(min_length=1)


@dataclass(frozen=True)
class Pipeline:
    """Stages by name, in the order of their file, each with its words; then come words for all that read the setting, and words `added` for one."""

    name: str
    description: str
    stages: Mapping[str, tuple[str, ...]]
    shared: tuple[str, ...] = ()
    added: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def own(self, stage: str) -> tuple[str, ...]:
        """A stage's words without those for all."""
        return (*self.stages[stage], *self.added.get(stage, ()))


@dataclass(frozen=True)
class Stage:
    """One stage, composed: the id of its run, the stages whose outputs it uses, those outputs as they stand in its settings, and the settings."""

    name: str
    run_id: str
    needs: tuple[str, ...]
    uses: tuple[str, ...]
    overrides: tuple[str, ...]
    experiment: Experiment


def shipped() -> list[str]:
    """The names of the pipelines that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str) -> Pipeline:
    """A pipeline of conf/pipeline by its name, or the file at a path: one with a `/`, or ending in .yaml.

    Raises:
        SpecError: there is none, or its file is not one; the message names the file and what is wrong.
    """
    is_path = "/" in name or name.endswith(ENDINGS)
    path = Path(name).expanduser() if is_path else FOLDER / f"{name}.yaml"
    if not is_path and name not in shipped():
        own = "a file of your own is named by its path, as in pipeline=./mine.yaml"
        raise SpecError([("pipeline", f"there is no {name!r}{nearest(name, shipped())}; there are: {', '.join(shipped()) or 'none'}; {own}")])
    try:
        tree = plain.load_mapping(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([("pipeline", f"{name}: {error.strerror if isinstance(error, OSError) else error}")]) from None
    except ValueError as error:
        raise SpecError([("pipeline", f"{name}: {error}")]) from None
    return _checked(path.stem if is_path else name, name, tree)


def _checked(name: str, source: str, tree: Mapping[str, object]) -> Pipeline:
    try:
        file = _File.model_validate(tree)
    except ValidationError as error:
        raise SpecError([(source, _explained(each["loc"], each["type"], each["msg"])) for each in error.errors()]) from None
    reserved = {*Experiment.model_fields, *composing.groups(), "pipeline", RUN, UNTIL}
    for stage in file.stages:
        if not _NAME.fullmatch(stage):
            raise SpecError([(source, f"stages.{stage}: a stage's name has up to 40 lower-case letters, digits and underscores, as in reward_model")])
        if stage in reserved:
            raise SpecError([(source, f"stages.{stage}: a stage cannot be called {stage!r}, which begins the settings of an experiment")])
    return Pipeline(name, file.description, file.stages)


def _explained(path: Sequence[int | str], kind: str, message: str) -> str:
    key, known = ".".join(map(str, path)), list(_File.model_fields)
    if kind == "extra_forbidden":
        return f"there is no such key: {key}{nearest(str(path[-1]), known)}; a pipeline has: {', '.join(known)}"
    if kind == "missing":
        return f"{key} is required"
    if len(path) == 2:
        return f"{key}: expected a list of words as on the command line of `workbench run`, as in [algorithm=sft, algorithm.lr=1e-4]"
    return f"{key}: {message[:1].lower()}{message[1:]}"


def with_overrides(pipeline: Pipeline, overrides: Sequence[str]) -> Pipeline:
    """The pipeline with words of the command line: `sft.algorithm.lr=1e-4` is for the stage sft, `backend=slurm` for all, `name=…` the pipeline's name,
    and of `until=sft` only that stage is left, with those whose outputs it uses.

    Raises:
        SpecError: a word that begins with neither a stage nor a setting; the message names the nearest.
    """
    stages, added, shared, name, last = pipeline.stages, dict(pipeline.added), list(pipeline.shared), pipeline.name, ""
    sections = [*Experiment.model_fields, *(group for group in composing.groups() if group not in Experiment.model_fields)]
    for word in overrides:
        match = _WORD.fullmatch(word)
        assert match
        sign, key, value = match["sign"], match["key"], match["value"]
        first, _, rest = key.partition(".")
        if first in stages and rest:
            added[first] = (*added.get(first, ()), f"{sign}{rest}{value}")
        elif first in stages:
            raise SpecError([(word, f"expected a setting of the stage, as in {first}.seed=3")])
        elif first not in (*sections, UNTIL):
            known = [*stages, *sections]
            raise SpecError(
                [(key or word, f"there is no stage and no section {first!r}{nearest(first, known)}; the stages are: {', '.join(stages)}")]
            )
        elif key in ONE_STAGES:
            raise SpecError([(key, f"is of one stage: {next(iter(stages))}.{word}")])
        elif not value and "~" not in sign:
            raise SpecError([(word, "expected key=value")])
        elif key == "name":
            name = str(plain.load(value[1:]))
        elif key == UNTIL:
            last = value[1:]
        else:
            shared.append(word)
    whole = replace(pipeline, name=name, added=added, shared=tuple(shared))
    return _until(whole, last) if last else whole


def _until(pipeline: Pipeline, last: str) -> Pipeline:
    """The stage, and those that it needs."""
    if last not in pipeline.stages:
        raise SpecError([(UNTIL, f"there is no stage {last!r}{nearest(last, list(pipeline.stages))}; the stages are: {', '.join(pipeline.stages)}")])
    used, left = needs(pipeline), {last}
    for stage in reversed(used):
        if stage in left:
            left.update(used[stage])
    if lost := [f"{stage}.{overrides[0].lstrip('+~')}" for stage, overrides in pipeline.added.items() if stage not in left]:
        raise SpecError([(word, f"is of a stage that {UNTIL}={last} leaves out") for word in lost])
    return replace(pipeline, stages={stage: overrides for stage, overrides in pipeline.stages.items() if stage in left})


def needs(pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
    """Of each stage those whose outputs it uses, the stages in an order in which each comes after those; else as in the file.

    Raises:
        SpecError: an output of a stage that there is not, or a cycle; the message names the stages.
    """
    used = {stage: tuple(dict.fromkeys(_stage(pipeline, stage, name) for name in _references(pipeline.own(stage)))) for stage in pipeline.stages}
    ordered: dict[str, tuple[str, ...]] = {}
    while len(ordered) < len(used):
        ready = next((stage for stage, of in used.items() if stage not in ordered and all(each in ordered for each in of)), None)
        if ready is None:
            raise SpecError([("stages", f"a cycle: {' -> '.join(_cycle({stage: of for stage, of in used.items() if stage not in ordered}))}")])
        ordered[ready] = used[ready]
    return ordered


def _cycle(used: Mapping[str, Sequence[str]]) -> list[str]:
    """A way from a stage over those that it uses back to itself; each of them uses another of these."""
    way = [next(iter(used))]
    while way[-1] not in way[:-1]:
        way.append(next(each for each in used[way[-1]] if each in used))
    return way[way.index(way[-1]) :]


def _references(overrides: Sequence[str]) -> Iterator[str]:
    for word in overrides:
        yield from (match["name"] for match in _REFERENCE.finditer(word))


def _stage(pipeline: Pipeline, user: str, reference: str) -> str:
    stage, dot, _ = reference.partition(".")
    if not dot or stage not in pipeline.stages:
        known = list(pipeline.stages)
        raise SpecError([(user, f"${{{reference}}}: there is no stage {stage!r}{nearest(stage, known)}; the stages are: {', '.join(known)}")])
    return stage


def outputs(experiment: Experiment) -> list[str]:
    """The names of what a run leaves for others."""
    return [*experiment.job.outputs, RUN]


def compose(pipeline: Pipeline, ids: Mapping[str, str], root: Path) -> list[Stage]:
    """Every stage as a typed experiment, in an order in which each comes after those that it needs. `ids` are the runs' ids, `root` their folder.

    Raises:
        SpecError: as `needs`; a wrong setting, with its stage; an output that a stage's kind of job does not have; a word for all that no stage reads.
    """
    made: dict[str, Stage] = {}
    unread = set(pipeline.shared)
    for name, used in needs(pipeline).items():
        uses: list[str] = []

        def value(match: re.Match[str], uses: list[str] = uses) -> str:
            uses.append(_output(match["name"], made, root))
            return quoted(uses[-1] + match["rest"])

        try:
            first, added = (
                [_REFERENCE.sub(value, word) for word in overrides] for overrides in (pipeline.stages[name], pipeline.added.get(name, ()))
            )
            sections = sections_of(compose_tree(_last_choices([*first, *added])))
            read = [word for word in pipeline.shared if _first(word) in (*sections, *GENERAL)]
            unread.difference_update(read)
            taken = {_key(word) for word in pipeline.own(name) if _REFERENCE.search(word)}
            shared = [word for word in read if _key(word) not in taken]  # what a stage has from another stays so
            overrides = _last_choices([f"name={quoted(f'{pipeline.name} {name}'[:80])}", *first, *shared, *added])
            experiment = parse(compose_tree(overrides))
            if not experiment.job.ends:
                raise SpecError([("job", f"job={experiment.job.name} does not complete by itself, so it is no stage: launch it on its own")])
        except SpecError as error:
            raise SpecError([(f"{name}.{key}" if key else name, what) for key, what in error.problems]) from None
        made[name] = Stage(name, ids[name], used, tuple(uses), tuple(overrides), experiment)
    if unread:
        raise SpecError([(word, "no stage's kind of job reads this setting") for word in sorted(unread)])
    return list(made.values())


def _last_choices(overrides: Sequence[str]) -> list[str]:
    """Of several choices in one group the last, in the first one's place: a word that is added chooses anew."""
    groups, result = composing.groups(), dict[str, str]()
    for number, word in enumerate(overrides):
        key = word.partition("=")[0]
        result[key if key in groups else f"{number} {word}"] = word
    return list(result.values())


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _first(word: str) -> str:
    return _key(word).partition(".")[0]


def _output(reference: str, made: Mapping[str, Stage], root: Path) -> str:
    """What stands in the settings for `${stage.output}`."""
    stage, _, output = reference.partition(".")
    of = made[stage]
    known = outputs(of.experiment)
    if output not in known:
        kind = of.experiment.job.name
        what = f"a stage with job={kind} has no output {output!r}{nearest(output, known)}; {stage} has: {', '.join(known)}"
        raise SpecError([("", f"${{{reference}}}: {what}")])
    if output == CHECKPOINT:
        return of.run_id
    return str(root / of.run_id / of.experiment.job.outputs[output]) if output != RUN else str(root / of.run_id)


def checkpoint_of(stage: Stage, others: Mapping[str, Stage]) -> Stage | None:
    """The stage whose checkpoint this one's job is on; None where it is on none of these stages'."""
    job = stage.experiment.job
    named = job.checkpoint.partition(":")[0] if isinstance(job, CheckpointJob) and job.checkpoint else None
    return next((other for other in others.values() if other.run_id == named), None)
