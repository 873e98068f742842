"""What the Launch form starts from, and the command line that its settings equal."""

from __future__ import annotations

import copy
import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import streamlit as st
import yaml

from ui import frame
from workbench import api
from workbench.api import Run
from workbench.settings import CheckpointJob, composing, modules, spec, stored
from workbench.settings.composing import SpecError
from workbench.settings.spec import Experiment
from workbench.settings.stored import spec_tree
from workbench.views import text

NOTHING, DEFAULT_JOB = "none", "train"
_hydra = threading.Lock()  # Hydra keeps its state in the process, and every browser session is a thread


@dataclass(frozen=True)
class Start:
    """Where the form begins: the kind of job, the words that give the tree, the choice of each group in it (None where no choice gives it), the
    tree. `name` tells one beginning from another."""

    name: str
    job: str
    overrides: tuple[str, ...]
    chosen: dict[str, str | None]
    tree: dict[str, Any]


@lru_cache(maxsize=512)
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    with _hydra:
        return composing.compose_tree(overrides)


def resolved(overrides: Sequence[str]) -> dict[str, Any]:
    """The whole tree that these words give, defaults filled in; as far as it goes where a required value is missing."""
    tree = copy.deepcopy(_composed(tuple(overrides)))
    try:
        return spec.parse(tree).model_dump(mode="json")
    except SpecError:
        return tree


def command(overrides: Sequence[str], tree: dict[str, Any]) -> str:
    """`workbench run …`: the choices, then what differs from them of the sections that the job reads."""
    changed = composing.overrides_between(spec.filled(_composed(tuple(overrides))), read_by_its_job(tree))
    return " ".join(["workbench run", *map(_shell_word, (*overrides, *changed))])


def _shell_word(word: str) -> str:
    """In double quotes where the word has single ones, if it can be: they are easier to read than the shell's other way."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def read_by_its_job(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree's values and sections without the sections that its kind of job does not read."""
    read = ("job", *modules.find_job(stored.job(tree)).Config.sections)
    return {name: value for name, value in tree.items() if name in read or not isinstance(value, dict)}


def as_yaml(experiment: Experiment) -> str:
    """The resolved settings that the job reads."""
    return yaml.safe_dump(read_by_its_job(experiment.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def command_of(tree: dict[str, Any]) -> str:
    """The command line that gives a run's settings."""
    return command(words_of(tree), tree)


def words_of(tree: Mapping[str, Any]) -> list[str]:
    """The choices that a resolved tree holds: its kind of job where it does not train, its algorithm and its backend, by name."""
    names = {group: tree.get(group, {}).get("name") for group in ("job", "algorithm", "backend")}
    return [f"{group}={name}" for group, name in names.items() if name in composing.choices(group) and (group, name) != ("job", DEFAULT_JOB)]


def groups(job: str) -> list[str]:
    """What can be chosen by name for this kind of job, beside the experiment and the kind itself, in the form's order."""
    sections = modules.find_job(job).Config.sections
    first = ["algorithm", "model", "data", "backend"]
    every = [*first, *(group for group in composing.groups() if group not in (*first, "job", "experiment"))]
    return [group for group in every if group in sections or group not in Experiment.model_fields]


def start(source: Run | None) -> Start:
    """What the form begins with: the cloned run's settings, those of a job on a checkpoint, or those of the job and the experiment chosen here."""
    if source is not None:
        st.info(f"The form holds the settings of **{frame.plain(source.id)}**.", icon=":material/content_copy:")
        tree = spec_tree(source.dir)
        return _given(source.id, tree, words_of(tree))
    if checkpoint := st.query_params.get("checkpoint"):
        try:
            return _of_checkpoint(st.query_params.get("job", DEFAULT_JOB), checkpoint)
        except ValueError as error:
            st.warning(frame.sentence(str(error)), icon=":material/search_off:")
    left, right = st.columns([2, 3], gap="medium")
    with left:
        job = _chosen_job()
    experiments = [name for name in composing.choices("experiment") if stored.job(_composed((f"experiment={name}",))) == job]
    overrides: tuple[str, ...] = () if job == DEFAULT_JOB else (f"job={job}",)
    name = NOTHING if job == DEFAULT_JOB else job
    if experiments:
        with right:
            picked = _chosen_experiment(experiments)
        if picked != NOTHING:
            name, overrides = picked, (f"experiment={picked}",)
    tree = resolved(overrides)
    if name == job:  # what the composition calls it is the project's word for any run
        tree["name"] = job
    return Start(name, job, overrides, {group: _choice(overrides, group) for group in groups(job)}, tree)


def _chosen_job() -> str:
    kinds = composing.choices("job")
    explained = "\n".join(f"- {text.title(kind)}: {(modules.find_job(kind).Config.__doc__ or '').strip().partition(chr(10))[0]}" for kind in kinds)
    wanted = st.query_params.get("job", DEFAULT_JOB)
    return st.selectbox(
        "Job",
        kinds,
        index=kinds.index(wanted) if wanted in kinds else kinds.index(DEFAULT_JOB),
        format_func=text.title,
        help=f"What the run does: a file in `conf/job/`.\n\n{explained}",
        key="launch-job",
        persist_state="session",
    )


def _chosen_experiment(experiments: Sequence[str]) -> str:
    listed = [NOTHING, *experiments]
    wanted = st.query_params.get("experiment", "dpo_demo")
    return st.selectbox(
        "Start from an experiment",
        listed,
        index=listed.index(wanted) if wanted in listed else 0,
        help="An experiment sets several choices at once: a file in `conf/experiment/`.",
        width=360,
        key="launch-experiment",
        persist_state="session",
    )


def _of_checkpoint(job: str, checkpoint: str) -> Start:
    """A job on a run's checkpoint. Raises ValueError for a run that is not there, and a kind of job that takes no checkpoint."""
    takes = [name for name in composing.choices("job") if issubclass(modules.find_job(name).Config, CheckpointJob)]
    if job not in takes:
        raise ValueError(f"job={job} takes no checkpoint; these do: {', '.join(takes)}")
    tree = api.on_checkpoint(job, checkpoint).model_dump(mode="json")
    st.info(f"**{text.title(job)}** with the checkpoint **{frame.plain(checkpoint)}**.", icon=":material/save:")
    return _given(f"{job}-{checkpoint}", tree, words_of(tree))


def _given(name: str, tree: dict[str, Any], overrides: Sequence[str]) -> Start:
    """A beginning whose kind of job is settled."""
    names, job = dict(word.split("=", 1) for word in overrides), stored.job(tree)
    return Start(name, job, tuple(overrides), {group: names.get(group) for group in groups(job)}, tree)


def choose(begin: Start) -> tuple[list[str], dict[str, Any]]:
    """A select for each group. Returns the words and the tree with the choices in it."""
    overrides, tree = list(begin.overrides), copy.deepcopy(begin.tree)
    listed = groups(begin.job)
    where = begin.name if begin.name in composing.choices("experiment") else "the run"
    for group, column in zip(listed, st.columns(len(listed), gap="medium"), strict=True):
        options, now = composing.choices(group), begin.chosen[group]
        index = options.index(now) if now in options else None
        kept = f"as in {where}" if begin.tree.get(group) else "none"
        picked = column.selectbox(
            text.title(group),
            options,
            index=index,
            placeholder=kept,
            key=f"launch-{begin.name}-{group}",
            help=f"A file in `conf/{group}/`.",
            persist_state="session",
        )
        if picked is not None and picked != now:
            overrides = [word for word in overrides if not word.startswith(f"{group}=")] + [f"{group}={picked}"]
            tree[group] = resolved(overrides).get(group)
    return overrides, tree


def rerun_when_checked(experiment: Experiment, pending: Sequence[str]) -> None:
    """Draw the page again when something is known of a source that was still looked at."""
    if api.check_sources(experiment, wait_s=0).pending != pending:
        st.rerun()


def widget_key(begin: Start, overrides: Sequence[str], name: str) -> str:
    """A field keeps what was typed until the choice that it belongs to changes."""
    group = name.partition(".")[0]
    return f"launch-{begin.name}-{next((word for word in overrides if word.startswith(f'{group}=')), '')}-{name}"


def _choice(overrides: tuple[str, ...], group: str) -> str | None:
    """Which choice of a group the words come to."""
    tree = _composed(overrides).get(group)
    return next((choice for choice in composing.choices(group) if _composed((*overrides, f"{group}={choice}")).get(group) == tree), None)
