"""A reward model: a Hugging Face ...ForSequenceClassification directory with one score, as `workbench export` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workbench.rewards.base import Finished, Given, Need, Scorer, Scores

Config = str
EACH = True


def problems(config: str, samples_per_prompt: int) -> list[tuple[str, str]]:
    return []  # a directory or a hub id, which the run's own machine opens


def with_absolute_paths(config: str, absolute: Callable[[str], str]) -> str:
    return absolute(config)


def needs(config: str) -> Sequence[Need]:
    return (Need("reward", config),)


def scorer(name: str, config: str, given: Given) -> Scorer:
    def score(answers: Sequence[Finished]) -> Scores:
        return Scores(given.score(answers))

    return score
