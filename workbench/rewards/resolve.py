"""Find a function that settings name, for a reward or its shaping, and call it so that what goes wrong names it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from workbench.rewards.programs import PROGRAMS
from workbench.settings import functions
from workbench.settings.functions import Kind

Program = Callable[[str, str, Mapping[str, str]], float]

_SHOWN = 60

PROGRAM = Kind("reward program", ("prompt", "response", "row"), "workbench/rewards/example.py:concise", PROGRAMS)
SHAPING = Kind("shaping function", ("answer",), "workbench/rewards/example.py:unhurried")


def builtin() -> list[str]:
    """The names of the programs that come with the project."""
    return list(PROGRAMS)


def find(name: str, kind: Kind = PROGRAM) -> Callable[..., Any]:
    """As `functions.find`. Raises ValueError."""
    return functions.find(name, kind)


def check(name: str, kind: Kind = PROGRAM) -> None:
    """As `functions.check`. Raises ValueError."""
    functions.check(name, kind)


def score(function: Program, name: str, prompt: str, response: str, row: Mapping[str, str]) -> float:
    """What the program `function`, called `name`, gives for an answer.

    Raises:
        ValueError: it raised something, or gave a value that is NaN or infinite; the message names it, the prompt's beginning and the cause.
    """
    try:
        value = function(prompt, response, row)
    except Exception as error:  # whatever a user's function raises is reported as its own
        raise ValueError(f"{failed('reward', name, prompt)}: {type(error).__name__}: {error} (columns: {', '.join(row) or 'none'})") from error
    number = finite(value)
    if number is None:
        raise ValueError(f"{failed('reward', name, prompt)}: it returned {repr(value)[:_SHOWN]}; a reward is a finite number")
    return number


def finite(value: Any) -> float | None:
    """A user's value as a number; None where it is none, or none that is finite."""
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def failed(what: str, name: str, prompt: str) -> str:
    """The beginning of a message about a user's function."""
    begins = " ".join(prompt.split())
    return f"{what} {name} failed on the prompt {begins[:_SHOWN]!r}{'…' if len(begins) > _SHOWN else ''}"
