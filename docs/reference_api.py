"""The reference of `import workbench as wb`, made from the signatures and docstrings of what it offers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import workbench as wb
from workbench import notebook

ORDER = (
    "Experiment",
    "launch",
    "Run",
    "runs",
    "get",
    "attach",
    "RolloutTable",
    "compare",
    "Comparison",
    "generate",
    "evaluate",
    "annotate",
    "steer",
    "AttributeSliders",
    "chat",
    "Chat",
    "check_data",
    "preflight",
)
"""What a page that teaches begins with; the rest follows by name."""


def api() -> Iterator[str]:
    """A section for each name, with its methods and properties below it."""
    for name in (*ORDER, *sorted(set(notebook.__all__) - set(ORDER))):
        thing = getattr(wb, name)
        yield f"## wb.{name}\n"
        if inspect.isclass(thing):
            yield from _of_class(name, thing)
        else:
            yield f"```python\nwb.{name}{_signature(thing)}\n```\n\n{described(thing)}\n"


def described(thing: object) -> str:
    """A docstring as Markdown: its examples as code, its Args and Raises as lists."""
    text = re.sub(r"\n {8,}", " ", inspect.cleandoc(getattr(thing, "__doc__", None) or ""))  # a line that goes on
    lines, result = text.splitlines(), []
    within_example = False
    for line in lines:
        example = line.startswith((">>>", "...")) or (within_example and bool(line.strip()))
        if example != within_example:
            result.append("```pycon" if example else "```")
        within_example = example
        listed = re.match(r"    (\w+): (.*)", line)
        result.append(
            line if example else f"- `{listed[1]}`: {listed[2]}" if listed else f"\n{line}\n" if line in ("Args:", "Raises:", "Returns:") else line
        )
    return "\n".join([*result, *(["```"] if within_example else [])])


def _of_class(name: str, thing: type) -> Iterator[str]:
    if not issubclass(thing, Exception):
        yield f"```python\nwb.{name}{_signature(thing)}\n```\n"
    yield f"{described(thing)}\n"
    for key, member in _members(thing):
        if isinstance(member, property):
            yield f"### {name}.{key}\n\n{described(member)}\n"
        else:
            yield f"### {name}.{key}\n\n```python\n{key}{_signature(member)}\n```\n\n{described(member)}\n"


def _members(thing: type) -> Iterator[tuple[str, object]]:
    """The public ones that have a docstring of the project's, those of a base class of the project's too."""
    own = [cls for cls in thing.__mro__ if cls.__module__.startswith("workbench.")]
    for key in dict.fromkeys(key for cls in own for key in vars(cls)):
        member = next(vars(cls)[key] for cls in own if key in vars(cls))
        if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)) and member.__doc__:
            yield key, member


class _Name(str):
    """An annotation as it is written, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _signature(thing: object) -> str:
    assert callable(thing)
    whole = inspect.signature(thing)
    own = [each.replace(annotation=_Name(each.annotation)) for name, each in whole.parameters.items() if name != "self"]
    return str(whole.replace(parameters=own, return_annotation=whole.empty if whole.return_annotation == "None" else _Name(whole.return_annotation)))
