"""Whether this process may change anything. An app that several people share only reads: what it did, it would do as its own UNIX user."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_reason = ""


def only_read(reason: str) -> None:
    """From now on this process launches and controls nothing, and runs nobody's code."""
    global _reason
    _reason = reason


def refusal() -> str:
    """Why this process may not change anything; empty where it may."""
    return _reason


def changes(function: Callable[P, R]) -> Callable[P, R]:
    """For what launches, controls or runs code: raises PermissionError in a process that only reads."""

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if _reason:
            raise PermissionError(_reason)
        return function(*args, **kwargs)

    return checked
