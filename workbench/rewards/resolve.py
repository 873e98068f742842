"""From a reward's name in the settings to its function, and from an answer to a finite number."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from workbench.rewards import programs
from workbench.spec import nearest

Program = Callable[[str, str, Mapping[str, str]], float]
_REPOSITORY = Path(__file__).resolve().parents[2]


def builtin() -> list[str]:
    """The names of the programs that come with the project."""
    own = inspect.getmembers(programs, inspect.isfunction)
    return sorted(name for name, function in own if list(inspect.signature(function).parameters) == ["prompt", "response", "row"])


def find(name: str) -> Program:
    """A program by its name, or `path/to/file.py:function`: relative to the working directory, else to the repository.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    source, colon, function = name.rpartition(":")
    if not colon:
        if name not in builtin():
            known = builtin()
            raise ValueError(f"there is no reward program {name!r}{nearest(name, known)}; there are: {', '.join(known)}, or path/to/file.py:function")
        return getattr(programs, name)
    path = next((p for p in (Path(source).expanduser(), _REPOSITORY / source) if p.is_file()), None)
    if path is None:
        raise ValueError(f"reward program {name}: there is no file {source}")
    module_spec = importlib.util.spec_from_file_location(f"reward_{path.stem}", path)
    assert module_spec and module_spec.loader
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises is told as its own fault
        raise ValueError(f"reward program {name}: {path} cannot be loaded: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        functions = [n for n, _ in inspect.getmembers(module, inspect.isfunction)]
        raise ValueError(f"reward program {name}: {path} has no function {function!r}{nearest(function, functions)}; it has: {', '.join(functions)}")
    return found


def score(function: Program, name: str, prompt: str, response: str, row: Mapping[str, str]) -> float:
    """The program's reward for an answer.

    Raises:
        ValueError: the program raised, or gave no finite number; the message names it, the prompt and the cause.
    """
    try:
        value = float(function(prompt, response, row))
    except Exception as error:  # as above
        raise ValueError(f"reward {name} failed on the prompt {prompt[:80]!r}: {type(error).__name__}: {error} (columns: {', '.join(row)})") from error
    if not math.isfinite(value):
        raise ValueError(f"reward {name} gave {value} on the prompt {prompt[:80]!r}: a finite number is wanted")
    return value
