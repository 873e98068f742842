"""A tree of settings as the command line that gives it, and back: what a form and `Experiment` in a notebook show to copy."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import yaml

from workbench.settings import composing, modules, spec, stored
from workbench.settings.composing import SpecError
from workbench.settings.spec import Experiment
from workbench.settings.upgrade import Tree

DEFAULT_JOB = "train"


@lru_cache(maxsize=512)
def composed(overrides: tuple[str, ...]) -> Tree:
    """The tree that these words give, unchecked. It is shared: do not change it. Raises SpecError as `compose_tree` does."""
    return composing.compose_tree(overrides)


def resolved(overrides: Sequence[str]) -> Tree:
    """The whole tree that these words give, defaults filled in; as far as it goes where a required value is missing.

    Raises:
        SpecError: a word that is none, or a choice that is not there.
    """
    tree = copy.deepcopy(composed(tuple(overrides)))
    try:
        return spec.parse(tree).model_dump(mode="json")
    except SpecError:
        return spec.filled(tree)


def command(overrides: Sequence[str], tree: Tree) -> str:
    """`workbench run …`: the choices, then what differs from them of the sections that the job reads."""
    return " ".join(["workbench run", *map(_shell_word, all_words(overrides, tree))])


def all_words(overrides: Sequence[str], tree: Tree) -> list[str]:
    """The words that `compose` takes for a tree: the choices, then what differs from them of the sections that the job reads."""
    read = read_by_its_job(tree)
    changed = composing.overrides_between(spec.filled(composed(tuple(overrides))), read)
    return [*overrides, *removed(overrides, read), *changed]


def removed(overrides: Sequence[str], tree: Tree) -> list[str]:
    """`~key` for each setting that the choices have and the tree has not, as a reward of another name."""
    start = composed(tuple(overrides))
    return [f"~{key}" for section in start.keys() & tree.keys() for key in _missing(start[section], tree[section], section)]


def _missing(was: object, now: object, path: str) -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key, value in was.items():
            if key not in now:
                yield f"{path}.{key}"
            else:
                yield from _missing(value, now[key], f"{path}.{key}")


def _shell_word(word: str) -> str:
    """In double quotes where the word has single ones, if it can be: they are easier to read than the shell's other way."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def command_of(tree: Tree) -> str:
    """The command line that gives a run's settings."""
    return command(words_of(tree), tree)


def words_of(tree: Tree) -> list[str]:
    """The choices that a resolved tree holds: its kind of job where it does not train, its algorithm and its backend, by name."""
    names = {group: tree.get(group, {}).get("name") for group in ("job", "algorithm", "backend")}
    return [f"{group}={name}" for group, name in names.items() if name in composing.choices(group) and (group, name) != ("job", DEFAULT_JOB)]


def read_by_its_job(tree: Tree) -> Tree:
    """A tree's values and sections without the sections that its kind of job does not read."""
    read = sections_of(tree)
    return {name: value for name, value in tree.items() if name in read or not isinstance(value, dict)}


def sections_of(tree: Tree) -> tuple[str, ...]:
    """The sections that a tree's kind of job reads, its own first."""
    return ("job", *modules.find_job(stored.job(tree)).Config.sections)


def as_yaml(experiment: Experiment) -> str:
    """The resolved settings that the job reads."""
    return yaml.safe_dump(read_by_its_job(experiment.model_dump(mode="json")), sort_keys=False, allow_unicode=True)


def groups(job: str) -> list[str]:
    """What can be chosen by name for this kind of job, beside the experiment and the kind itself, in a form's order."""
    sections = modules.find_job(job).Config.sections
    first = ["algorithm", "model", "data", "backend"]
    every = [*first, *(group for group in composing.groups() if group not in (*first, "job", "experiment"))]
    return [group for group in every if group in sections or group not in Experiment.model_fields]


def choice(overrides: Sequence[str], group: str) -> str | None:
    """Which choice of a group the words come to; None for a group that the job has none of."""
    chosen = tuple(overrides)
    return _chosen(chosen).get(group) if composed(chosen).get(group) is not None else None


@lru_cache(maxsize=512)
def _chosen(overrides: tuple[str, ...]) -> Mapping[str, str]:
    return composing.chosen(overrides)


def experiments(job: str) -> list[str]:
    """The files of conf/experiment/ that set up this kind of job."""
    return [name for name in composing.choices("experiment") if stored.job(composed((f"experiment={name}",))) == job]
