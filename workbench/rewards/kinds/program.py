"""A function of workbench.rewards.programs by its name, or your own: path/to/file.py:function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workbench.rewards import resolve
from workbench.rewards.base import Finished, Given, Need, Scorer, Scores
from workbench.settings import functions

Config = str
EACH = True


def problems(config: str, samples_per_prompt: int) -> list[tuple[str, str]]:
    return [("", what) for what in functions.problems(config, resolve.PROGRAM)]


def with_absolute_paths(config: str, absolute: Callable[[str], str]) -> str:
    return functions.with_absolute_path(config, absolute)


def needs(config: str) -> Sequence[Need]:
    return ()


def scorer(name: str, config: str, given: Given) -> Scorer:
    function = resolve.find(config)

    def score(answers: Sequence[Finished]) -> Scores:
        return Scores([resolve.score(function, name, a.prompt, a.response, a.columns) for a in answers])

    return score
