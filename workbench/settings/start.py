"""What a form for an experiment starts from, and the tree after a choice."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.settings import CheckpointJob, command_line, composing, modules, stored
from workbench.settings.command_line import DEFAULT_JOB
from workbench.settings.upgrade import Tree

NO_EXPERIMENT = "none"
FIRST_EXPERIMENT = "dpo_demo"
"""What a form begins with where nothing else is asked for: it runs anywhere and needs no download."""


@dataclass(frozen=True)
class Start:
    """Where a form begins: the kind of job, the words that give the tree, the choice of each group in it (None where no choice gives it), the
    tree. `name` tells one beginning from another; `experiment` is the file of conf/experiment, None for settings that were there already."""

    name: str
    job: str
    overrides: tuple[str, ...]
    chosen: Mapping[str, str | None]
    tree: Tree
    experiment: str | None = None

    @property
    def where(self) -> str:
        """What the beginning is called where a group keeps what it has."""
        return "the run" if self.experiment in (None, NO_EXPERIMENT) else self.name


def of_experiment(job: str = DEFAULT_JOB, experiment: str = NO_EXPERIMENT) -> Start:
    """The settings of a kind of job, or of an experiment of that kind."""
    overrides: tuple[str, ...] = () if job == DEFAULT_JOB else (f"job={job}",)
    name = NO_EXPERIMENT if job == DEFAULT_JOB else job
    if experiment != NO_EXPERIMENT:
        name, overrides = experiment, (f"experiment={experiment}",)
    tree = command_line.resolved(overrides)
    if name == job:  # what the composition calls it is the project's word for any run
        tree["name"] = job
    chosen = {group: command_line.choice(overrides, group) for group in command_line.groups(job)}
    return Start(name, job, overrides, chosen, tree, experiment)


def of_experiment_named(name: str) -> Start:
    """The settings of a file in conf/experiment. Raises SpecError for one that is not there; it names the nearest."""
    return of_experiment(stored.job(command_line.composed((f"experiment={name}",))), name)


def of_tree(name: str, tree: Tree) -> Start:
    """Settings that are there already: a run's, or those of a job on a checkpoint."""
    overrides, job = command_line.words_of(tree), stored.job(tree)
    names = dict(word.split("=", 1) for word in overrides)
    return Start(name, job, tuple(overrides), {group: names.get(group) for group in command_line.groups(job)}, tree)


def with_choices(start: Start, picked: Mapping[str, str | None]) -> tuple[list[str], Tree]:
    """The words and the tree with a choice of some groups in it; a group whose choice is None, or what it was, stays as it is."""
    overrides, tree = list(start.overrides), copy.deepcopy(start.tree)
    for group, choice in picked.items():
        if choice is not None and choice != start.chosen[group]:
            overrides = [word for word in overrides if not word.startswith(f"{group}=")] + [f"{group}={choice}"]
            tree[group] = command_line.resolved(overrides).get(group)
    return overrides, tree


def chosen_word(overrides: Sequence[str], key: str) -> str:
    """The word that chooses the group which a setting belongs to: what is typed for the setting is kept until that word changes. Empty for none."""
    group = key.partition(".")[0]
    return next((word for word in overrides if word.startswith(f"{group}=")), "")


def checkpoint_jobs() -> list[str]:
    """The kinds of job that take a checkpoint."""
    return [name for name in composing.choices("job") if issubclass(modules.find_job(name).Config, CheckpointJob)]


def explained_jobs() -> dict[str, str]:
    """Each kind of job with the first line that its file says of it."""
    return {kind: (modules.find_job(kind).Config.__doc__ or "").strip().partition("\n")[0] for kind in composing.choices("job")}
