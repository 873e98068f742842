"""What a kind of reward is: one file of `workbench/rewards/kinds/`, found by its name. `kinds/program.py` is the shortest.

A kind builds no model: it says which roles it needs (`needs`), and asks them through `Given`. Answers and prompts are text that nobody has checked:
they are data, never a template, a command or a path.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from workbench.data.rows import PromptOnly
from workbench.settings.online import Need, RewardKind

Tally = tuple[float, float]
"""A metric as (sum, count): it is reported as their quotient, over all that was scored in a step."""


@dataclass(frozen=True)
class Finished:
    """An answer to be scored. Answers with the same `prompt_index` answer the same prompt, and lie side by side.

    `prompt` is the text of the tokens `prefix`, with the chat template's marks; `response` that of `tokens`, without special tokens; both end before a stop
    string. `columns` are the data row's others, as text. `asked` is the prompt as it was read: its messages; None where they are not known.
    """

    prompt_index: int
    prompt: str
    response: str
    columns: Mapping[str, str]
    prefix: Sequence[int]
    tokens: Sequence[int]
    asked: PromptOnly | None = None


@dataclass(frozen=True)
class Scores:
    """One score for each answer, in their order; None where it is unknown and stays so, as where a judge gave no verdict."""

    values: Sequence[float | None]
    tallies: Mapping[str, Tally] = field(default_factory=dict)


@dataclass(frozen=True)
class Waiting:
    """Not all is known yet. `reason` completes "waiting for …"; whoever asked asks again."""

    reason: str


def before_stop(tokens: Sequence[int], decode: Callable[[Sequence[int]], str], stop_strings: Sequence[str]) -> tuple[str, list[int]]:
    """What is scored of an answer: its text up to the first stop string, and its tokens up to the one in which that text ends, at least one.

    The policy learns from all tokens: it sampled the stop string's as it does the end token.
    """
    text, tokens = decode(tokens), list(tokens)
    end = min((start for stop in stop_strings if (start := text.find(stop)) >= 0), default=len(text))
    if end == len(text):
        return text, tokens
    return text[:end], tokens[: max(1, bisect.bisect_left(range(len(tokens)), end, key=lambda count: len(decode(tokens[:count]))))]


Verdict = np.ndarray
"""[W]: a judge's probability of each of W options; they sum to 1."""


class Judge(Protocol):
    """A judge, as a scorer asks it. All ranks ask the same at the same time."""

    def __call__(self, questions: Sequence[str], options: Sequence[str]) -> Sequence[Verdict | None] | Waiting:
        """By question, the verdict over the options; None where no verdict can be read. Asked again after `Waiting`, it asks nothing twice."""
        ...


@dataclass(frozen=True)
class Given:
    """What the roles that a component needs do for it: `score` gives its reward model's score of each answer (None: it cannot read it), `judge` asks its judge."""

    score: Callable[[Sequence[Finished]], Sequence[float | None]]
    judge: Judge


class Scorer(Protocol):
    """Scores the answers of one component of the reward."""

    def __call__(self, answers: Sequence[Finished]) -> Scores | Waiting:
        """Raises ValueError where it cannot continue; the message names the component and the cause.

        After `Waiting` it is called again with the same answers. What needs a role is called on all ranks alike, anything else on one of them.
        """
        ...


class Kind(RewardKind, Protocol):
    """A file of `workbench/rewards/kinds/`; its docstring's first paragraph describes the setting.

    EACH: whether an answer's score depends on that answer alone and is known at once. Such answers are scored as they finish, and behind the reward
    server where there is one, without tallies; of roles they may need the reward model. Anything else is scored when all of a step's answers are there, beside the policy, and may wait.
    """

    EACH: bool

    def scorer(self, name: str, config: Any, given: Given) -> Scorer:
        """The scorer of the component `name`. Raises ValueError where what the settings name is not there."""
        ...


__all__ = ["Finished", "Given", "Judge", "Kind", "Need", "Scorer", "Scores", "Tally", "Verdict", "Waiting", "before_stop"]
