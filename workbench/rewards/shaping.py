"""Shaping: a function of one's own that turns an answer's reward into another, or into rewards of its tokens (`algorithm.shaping`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.rewards import resolve
from workbench.rewards.resolve import failed, finite
from workbench.settings import functions

Shaping = Callable[["Answer"], "float | Sequence[float]"]
_SHOWN = 60


@dataclass(frozen=True)
class Answer:
    """A finished rollout with its rewards.

    Attributes:
        prompt: what was asked, with the chat template's marks.
        response: the answer, without its end token or stop string.
        row: the data row's other columns, as text.
        rewards: each component of `algorithm.rewards` by its name, unweighted.
        reward: their weighted sum.
        pieces: the text of each token, the end token's too.
        finish_reason: "stop" where it ended by itself, "length" where it was truncated at max_tokens.
    """

    prompt: str
    response: str
    row: Mapping[str, str]
    rewards: Mapping[str, float]
    reward: float
    pieces: Sequence[str]
    finish_reason: str


def problems(name: str) -> list[str]:
    """What is wrong with the function that `algorithm.shaping` names, from its file's text alone."""
    return functions.problems(name, resolve.SHAPING)


def with_absolute_paths(name: str, absolute: Callable[[str], str]) -> str:
    return functions.with_absolute_path(name, absolute)


def shaped(function: Shaping, name: str, answer: Answer) -> tuple[float, np.ndarray | None]:
    """What the function, called `name`, makes of an answer's reward: the whole, and by token [T] where it gave one for each.

    Raises:
        ValueError: it raised something, or gave neither a finite number nor one a token; the message names it and the prompt's beginning.
    """
    message = failed("shaping", name, answer.prompt)
    try:
        value = function(answer)
    except Exception as error:  # whatever a user's function raises is reported as its own
        raise ValueError(f"{message}: {type(error).__name__}: {error}") from error
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        numbers = [number for each in value if (number := finite(each)) is not None]
        if len(numbers) == len(value) == len(answer.pieces):
            return sum(numbers), np.array(numbers)
    elif (number := finite(value)) is not None:
        return number, None
    raise ValueError(f"{message}: it returned {repr(value)[:_SHOWN]}; expected a finite number, or one for each of the {len(answer.pieces)} tokens")
