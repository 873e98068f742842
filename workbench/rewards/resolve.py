"""Find a reward's program by its name, and call it so that what goes wrong names it."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from workbench.rewards.programs import PROGRAMS
from workbench.spec import nearest

Program = Callable[[str, str, Mapping[str, str]], float]

_REPOSITORY = Path(__file__).resolve().parents[2]
_FORM = "path/to/file.py:function"
_SHOWN = 60


def builtin() -> list[str]:
    """The names of the programs that come with the project."""
    return list(PROGRAMS)


def find(name: str) -> Program:
    """The program of a name: one of `programs.PROGRAMS`, or `path/to/file.py:function` (relative to the working directory, else to the
    repository), whose file is run.

    Raises:
        ValueError: there is no such program, file or function, the file cannot be run, or the function does not take (prompt, response, row).
    """
    if name in PROGRAMS:
        return PROGRAMS[name]
    path, colon, function = name.rpartition(":")
    if not colon and not name.endswith(".py"):
        raise ValueError(f"there is no reward program {name!r}{nearest(name, builtin())}; there are: {', '.join(builtin())}; or your own as {_FORM}")
    if not path.endswith(".py") or not function.isidentifier():
        raise ValueError(f"reward program {name!r}: expected {_FORM}, for example workbench/rewards/example.py:concise")
    return _function(_load(_locate(path)), function, path)


def score(function: Program, name: str, prompt: str, response: str, row: Mapping[str, str]) -> float:
    """What the program `function`, called `name`, gives for an answer.

    Raises:
        ValueError: it raised something, or gave what is no finite number; the message names it, the prompt's beginning and the cause.
    """
    try:
        value = function(prompt, response, row)
    except Exception as error:  # whatever a user's function raises is told as its own
        raise ValueError(f"{_call(name, prompt)}: {type(error).__name__}: {error} (columns: {', '.join(row) or 'none'})") from error
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{_call(name, prompt)}: it returned {repr(value)[:_SHOWN]}; a reward is a finite number")
    return number


def _call(name: str, prompt: str) -> str:
    begins = " ".join(prompt.split())
    return f"reward {name} failed on the prompt {begins[:_SHOWN]!r}{'…' if len(begins) > _SHOWN else ''}"


def _locate(path: str) -> Path:
    given = Path(path).expanduser()
    for place in (given, _REPOSITORY / given):
        if place.is_file():
            return place.resolve()
    folders = [folder for folder in (given.parent, (_REPOSITORY / given).parent) if folder.is_dir()]
    files = {file.name: file for folder in reversed(folders) for file in folder.glob("*.py")}
    close = difflib.get_close_matches(given.name, list(files), n=1)
    raise ValueError(
        f"there is no file {path} with a reward, neither in {Path.cwd()} nor in {_REPOSITORY}"
        + (f"; did you mean {files[close[0]]}?" if close else "")
    )


def _load(path: Path) -> ModuleType:
    module_name = f"workbench_reward_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look a module up by its name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises is told as its own
        del sys.modules[module_name]
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    return module


def _function(module: ModuleType, name: str, path: str) -> Program:
    found = getattr(module, name, None)
    if not callable(found):
        own = [n for n, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__]
        raise ValueError(f"{path} has no function {name!r}{nearest(name, own)}; it has: {', '.join(own) or 'none'}")
    try:
        inspect.signature(found).bind("", "", {})
    except TypeError as error:
        raise ValueError(f"{path}: {name}{inspect.signature(found)} cannot be called as {name}(prompt, response, row): {error}") from error
    return found  # type: ignore[return-value]
