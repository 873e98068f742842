"""Checkpoints by the names that people give them, and what a job on one takes over from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from workbench.data.targets import Targets
from workbench.rundir import listing, opening
from workbench.rundir.files import read_json
from workbench.rundir.store import COMPLETE, RunDir
from workbench.settings import WEIGHTS, CheckpointJob, CheckpointsJob, Model, functions, stored
from workbench.settings.composing import SpecError, compose_tree
from workbench.settings.layout import check as check_layout
from workbench.settings.layout import known_shape
from workbench.settings.modules import outputs_of
from workbench.settings.spec import Experiment, overridden, parse
from workbench.steering import rules

KEY = "job.checkpoint"


def with_checkpoint(experiment: Experiment) -> Experiment:
    """The experiment with its job's checkpoint as a folder's path, and the model that the checkpoint is of: its source, precision and adapters.

    Raises:
        SpecError: there is no such checkpoint, its weights are not what the job needs, or the layout does not fit its model.
    """
    job = experiment.job
    if isinstance(job, CheckpointsJob):
        return _with_checkpoints(experiment, job)
    if not isinstance(job, CheckpointJob):
        return experiment
    if job.checkpoint is None and job.needs_checkpoint:
        raise SpecError([(KEY, f"job={job.name} needs one: a run's id or `latest`, `id:step`, or the folder of a checkpoint")])
    if job.checkpoint is None:
        return _asked_as_beside(experiment)
    try:
        folder = locate(job.checkpoint)
        weights = _weights(folder)
        _check(experiment, folder)
    except (ValueError, OSError) as error:
        raise SpecError([(KEY, str(error))]) from None
    return _with_weights(experiment, weights, _of_run(experiment, folder), str(folder))


def _with_weights(experiment: Experiment, weights: Mapping[str, object], taken: Mapping[str, object], checkpoint: str | None = None) -> Experiment:
    """The experiment on weights of this model, its job's checkpoint named anew where one is given. Raises SpecError where the layout does not fit."""
    tree = experiment.model_dump(mode="json")
    named = {"checkpoint": checkpoint} if checkpoint else {}
    return _fits(parse({**tree, **taken, "job": {**tree["job"], **named}, "model": {**tree["model"], **weights}}))


def _fits(experiment: Experiment) -> Experiment:
    """The experiment, whose layout fits its model. Raises SpecError."""
    ranks = experiment.backend.world_size
    try:
        check_layout(experiment.model.layout, ranks, known_shape(experiment.model.source) if ranks > 1 else None)
    except ValueError as error:
        raise SpecError([("model", str(error))]) from None
    return experiment


def _of_run(experiment: Experiment, folder: Path) -> dict[str, object]:
    """What a job takes over from the run of its checkpoint beside the model: how ratings are said, where it asks for answers; the algorithm, whose scores it reads."""
    run = RunDir(folder.parents[1])
    return _taken_over(experiment, stored.experiment(run)) if opening.is_file(run.spec_path) else {}


def _taken_over(experiment: Experiment, of: Experiment) -> dict[str, object]:
    job, data = experiment.job, experiment.data
    assert isinstance(job, CheckpointJob)
    taken: dict[str, object] = {}
    if "steering" in job.takes_over and data.steering is None and of.data.steering is not None:
        taken["data"] = data.model_copy(
            update={"steering": of.data.steering, "template_kwargs": data.template_kwargs or of.data.template_kwargs}
        ).model_dump(mode="json")
    if "algorithm" in job.takes_over:
        taken["algorithm"] = of.algorithm.model_dump(mode="json")
    return taken


def _asked_as_beside(experiment: Experiment) -> Experiment:
    """With the ratings as the model in a directory was trained to read them, where the directory says so."""
    job, data, source = experiment.job, experiment.data, Path(experiment.model.source).expanduser()
    assert isinstance(job, CheckpointJob)
    if "steering" not in job.takes_over or data.steering is not None or not source.is_dir() or (known := Targets.beside(source)) is None:
        return experiment
    tree = experiment.model_dump(mode="json")
    kwargs = data.template_kwargs or dict(known.template_kwargs)
    return parse({**tree, "data": {**tree["data"], "steering": known.steering.model_dump(mode="json"), "template_kwargs": kwargs}})


def with_expected_checkpoint(experiment: Experiment, of: Experiment) -> Experiment:
    """The experiment of a job on the checkpoint that the run `of` is going to write, with the model that it will be of.

    Raises:
        SpecError: those weights are not what the job needs, or the layout does not fit the model.
    """
    try:
        _check_scores(experiment, of, "the checkpoint to come")
    except ValueError as error:
        raise SpecError([(KEY, str(error))]) from None
    return _with_weights(experiment, of.model.model_dump(mode="json", include=set(WEIGHTS)), _taken_over(experiment, of))


def _with_checkpoints(experiment: Experiment, job: CheckpointsJob) -> Experiment:
    """Each of the job's checkpoints as a folder's path, each local model's from the root; the experiment's model is the first's."""
    names = [_path(name) for name in job.checkpoints]
    tree = experiment.model_dump(mode="json")
    model = {"source": names[0]} if names else {}
    for i, name in enumerate(names):
        if (Path(name) / COMPLETE).is_file():
            try:
                weights = _weights(Path(name))
                _check(experiment, Path(name))
            except (ValueError, OSError) as error:
                raise SpecError([("job.checkpoints", str(error))]) from None
            model = {key: weights[key] for key in ("source", "revision") if key in weights} if i == 0 else model
    return _fits(parse({**tree, "job": {**tree["job"], "checkpoints": names, **_measures(job)}, "model": {**tree["model"], **model}}))


def _measures(job: CheckpointsJob) -> dict[str, object]:
    """What measures answers, by paths. Raises SpecError for what is not there."""
    try:
        measure = None if job.measure is None else str(locate(job.measure))
    except ValueError as error:
        raise SpecError([("job.measure", str(error))]) from None
    if problems := rules.problems(job.rules):
        raise SpecError([("job.rules", problem) for problem in problems])
    return {
        "measure": measure,
        "rules": [functions.with_absolute_path(name, _from_the_root) for name in job.rules],
    }


def _from_the_root(path: str) -> str:
    given = Path(path).expanduser()
    return str(given.resolve()) if given.exists() else path


def _path(name: str) -> str:
    """Of a run its checkpoint's folder; a directory or file from the root; a model of the hub as it is. Raises SpecError for a run without a checkpoint."""
    try:
        return str(locate(name))
    except ValueError as error:
        given = Path(name).expanduser()
        if given.exists():
            return str(given.resolve())
        if name == "latest" or ":" in name or name.startswith((".", "/", "~")):
            raise SpecError([("job.checkpoints", str(error))]) from None
        return name


def on_checkpoint(job: str, checkpoint: str) -> Experiment:
    """What a job on a run's checkpoint starts from: an evaluation as the run measures itself; of other kinds the run's weights and data.

    Raises:
        ValueError: no such run, or a kind of job that does not take the run's settings.
    """
    run_id, _, _ = checkpoint.partition(":")
    of = stored.experiment(listing.find(run_id))
    if job == "evaluate":
        return evaluation(of, checkpoint, ())
    model = of.model.model_dump(mode="json", include=set(WEIGHTS))
    tree = compose_tree([f"job={job}"])
    made = {"name": f"{job} {of.name}"[:80], "data": of.data.model_dump(mode="json"), "job": {**tree["job"], "checkpoint": checkpoint}}
    return parse({**tree, **made, "model": model})


def evaluation(of: Experiment, checkpoint: str, overrides: Sequence[str]) -> Experiment:
    """The job that measures a run's checkpoint as the run itself does, with other held-out rows, backend or layout where the overrides say so.

    Raises:
        SpecError: an override that an evaluation does not take.
    """
    tree = of.model_dump(mode="json")
    tree["job"], tree["name"] = {"name": "evaluate", "checkpoint": checkpoint}, f"evaluate {of.name}"[:80]
    if "served" in tree["algorithm"]:
        tree["algorithm"]["served"] = []
    return overridden(tree, overrides, EVALUATION_KEYS)


EVALUATION_KEYS = (
    "name",
    "data",
    "validation",
    "rollout",
    "backend",
    "watch",
    *(f"model.{name}" for name in Model.model_fields if name not in WEIGHTS),
)
"""What an evaluation may set otherwise than the run that it evaluates."""


def locate(name: str) -> Path:
    """The folder of a complete checkpoint: `id`, `id:step`, or a path.

    Raises:
        ValueError: there is none; the message says which there are.
    """
    given = Path(name).expanduser()
    if (given / COMPLETE).is_file():
        return given.resolve()
    if given.is_dir():
        raise ValueError(f"{name} is no complete checkpoint: it has no {COMPLETE}")
    run_id, colon, step = name.rpartition(":")
    run = listing.find(run_id if colon else name)
    names = (name for name in opening.names(run.checkpoints) if name.isascii() and name.isdigit())
    steps = sorted(int(name) for name in names if opening.is_file(run.checkpoints / name / COMPLETE))
    if colon and (not step.isdigit() or int(step) not in steps):
        raise ValueError(f"run {run.id} has no complete checkpoint of step {step}; there are: {', '.join(map(str, steps)) or 'none'}")
    if not steps:
        raise ValueError(f"run {run.id} has no complete checkpoint")
    return (run.checkpoints / (step if colon else str(steps[-1]))).resolve()


def _weights(folder: Path) -> dict[str, object]:
    """What a checkpoint says that it is of: the source, the precision and the adapters of its model; nothing else of it becomes a setting."""
    model = read_json(folder / "meta.json").get("model")
    if not isinstance(model, dict):
        raise ValueError(f"{folder / 'meta.json'} does not say of which model it is")
    if unknown := sorted(set(model) - set(WEIGHTS)):
        raise ValueError(f"{folder / 'meta.json'} sets model.{unknown[0]}; a checkpoint decides only {', '.join(WEIGHTS)}")
    return model


def _check(experiment: Experiment, folder: Path) -> None:
    """Whether weights of the run that the checkpoint lies in serve the job's algorithm."""
    run = RunDir(folder.parents[1])
    if not opening.is_file(run.spec_path):  # a checkpoint that was copied out of its run: the loading tells
        return
    _check_scores(experiment, stored.experiment(run), str(folder))


def _check_scores(experiment: Experiment, of: Experiment, checkpoint: str) -> None:
    theirs, job = of.algorithm, experiment.job
    if isinstance(job, CheckpointJob) and job.takes_scorers:
        return
    scores, wanted = (outputs_of(algorithm).scores for algorithm in (theirs, experiment.algorithm))
    if scores and not wanted:
        raise ValueError(f"{checkpoint} is of a model that scores answers and gives none (algorithm={theirs.name})")
    if scores != wanted:
        raise ValueError(
            f"{checkpoint} is of a model with {scores or 'no'} scores (algorithm={theirs.name}); {experiment.algorithm.name} wants {wanted}"
        )
