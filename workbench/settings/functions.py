"""Find a function of the user's that settings name, `path/to/file.py:function`: looked at without running it, or run by the process that calls it."""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from workbench.settings import shipped
from workbench.settings.naming import nearest

_FORM = "path/to/file.py:function"


@dataclass(frozen=True)
class Kind:
    """What a function is for, what it is called with, an example of its name, and those that come with the project."""

    what: str
    arguments: tuple[str, ...]
    example: str
    known: Mapping[str, Callable[..., object]] = field(default_factory=dict)


MAP = Kind("function for data.map", ("row",), "my_maps.py:as_pair")


def find(name: str, kind: Kind) -> Callable[..., Any]:
    """The function of a name: one of `kind.known`, or `path/to/file.py:function` (relative to the working directory, else one that
    comes with the project: `workbench/…`), whose file is run.

    Raises:
        ValueError: there is no such function or file, the file cannot be run, or the function does not take the kind's arguments.
    """
    if name in kind.known:
        return kind.known[name]
    path, function = _parts(name, kind)
    module = _load(_locate(path, kind))
    named = getattr(module, function, None)
    if not callable(named):
        own = [n for n, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__]
        raise ValueError(_missing(path, function, own))
    _callable_as(inspect.signature(named), function, path, kind)
    return named


def check(name: str, kind: Kind) -> None:
    """As `find`, from the file's text alone: nothing of it is run or imported.

    Raises:
        ValueError: there is no such function or file, the file is no Python, or the function does not take the kind's arguments.
    """
    if name in kind.known:
        return
    path, function = _parts(name, kind)
    folder = _locate(path, kind)
    try:
        tree = ast.parse(folder.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    bound = dict(_bound(tree.body))
    if function not in bound and "*" not in bound:
        raise ValueError(_missing(path, function, [n for n, node in bound.items() if isinstance(node, ast.FunctionDef)]))
    made = bound.get(function)
    if isinstance(made, ast.FunctionDef) and not made.decorator_list:
        _callable_as(_signature(made.args), function, path, kind)


def problems(name: str, kind: Kind) -> list[str]:
    """As `check`, as a list: empty, or with what is wrong."""
    try:
        check(name, kind)
    except ValueError as error:
        return [str(error)]
    return []


def with_absolute_path(name: str, absolute: Callable[[str], str]) -> str:
    """The name of a function, its file named from the root; that of one that comes with the project as it is."""
    path, colon, function = name.rpartition(":")
    return f"{absolute(path)}:{function}" if colon else name


def _parts(name: str, kind: Kind) -> tuple[str, str]:
    """The path and the function of `path/to/file.py:function`."""
    path, colon, function = name.rpartition(":")
    if not colon and not name.endswith(".py"):
        known = (
            f"{nearest(name, list(kind.known))}; there are: {', '.join(kind.known)}; or your own as {_FORM}"
            if kind.known
            else f"; name it as {_FORM}"
        )
        raise ValueError(f"there is no {kind.what} {name!r}{known}")
    if not path.endswith(".py") or not function.isidentifier():
        raise ValueError(f"{kind.what} {name!r}: expected {_FORM}, for example {kind.example}")
    return path, function


def _locate(path: str, kind: Kind) -> Path:
    given = Path(path).expanduser()
    for candidate in filter(None, (given, shipped.find(given))):
        if candidate.is_file():
            return candidate.resolve()
    folders = [folder for folder in (given.parent, shipped.find(given.parent)) if folder and folder.is_dir()]
    files = {file.name: file for folder in reversed(folders) for file in folder.glob("*.py")}
    close = difflib.get_close_matches(given.name, list(files), n=1)
    raise ValueError(
        f"there is no file {path} with a {kind.what}, neither in {Path.cwd()} nor among the project's own"
        + (f"; did you mean {files[close[0]]}?" if close else "")
    )


def _load(path: Path) -> ModuleType:
    module_name = f"workbench_function_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look a module up by its name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises is reported as its own
        del sys.modules[module_name]
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    return module


def _missing(path: str, function: str, own: list[str]) -> str:
    return f"{path} has no function {function!r}{nearest(function, own)}; it has: {', '.join(own) or 'none'}"


def _callable_as(signature: inspect.Signature, function: str, path: str, kind: Kind) -> None:
    try:
        signature.bind(*[None] * len(kind.arguments))
    except TypeError as error:
        raise ValueError(f"{path}: {function}{signature} cannot be called as {function}({', '.join(kind.arguments)}): {error}") from error


def _bound(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """The names that a module's statements bind, with what binds each; `*` where an import brings names that only running it tells."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.AsyncFunctionDef):
            continue  # it would give a promise of a number
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name.partition(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            if isinstance(node.value, ast.Constant):
                continue  # a constant is no function
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((name.id, node) for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
        else:  # if, try, with and loops: whatever they may bind
            for part in ("body", "orelse", "finalbody"):
                yield from _bound(getattr(node, part, []))
            for branch in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
                yield from _bound(branch.body)


def _signature(arguments: ast.arguments) -> inspect.Signature:
    kinds = inspect.Parameter
    positional = [*arguments.posonlyargs, *arguments.args]
    without_default = len(positional) - len(arguments.defaults)
    parameters = [
        kinds(
            given.arg,
            kinds.POSITIONAL_ONLY if i < len(arguments.posonlyargs) else kinds.POSITIONAL_OR_KEYWORD,
            default=kinds.empty if i < without_default else ...,
        )
        for i, given in enumerate(positional)
    ]
    if arguments.vararg:
        parameters.append(kinds(arguments.vararg.arg, kinds.VAR_POSITIONAL))
    for given, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters.append(kinds(given.arg, kinds.KEYWORD_ONLY, default=kinds.empty if default is None else ...))
    if arguments.kwarg:
        parameters.append(kinds(arguments.kwarg.arg, kinds.VAR_KEYWORD))
    return inspect.Signature(parameters)
