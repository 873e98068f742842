"""The reference pages, made from the types: `python docs/reference.py FOLDER` writes api.md, settings.md, metrics.md, events.md and commands.md there.

The pages of docs/reference/ include them, and `make docs` calls this first; nothing of it is kept in git. It reads the same objects as the form, the
checks and the terminal do, and imports no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import annotated_types
import typer
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from workbench import metrics
from workbench.backends import base as backends
from workbench.metrics import Metric
from workbench.rundir import lines
from workbench.settings import AlgorithmConfig, Model, modules, online
from workbench.settings.spec import Experiment
from workbench.terminal.cli import app

sys.path.insert(0, str(Path(__file__).parent))
from reference_api import api

SHARED: dict[type[AlgorithmConfig], tuple[str, str]] = {
    online.SamplingConfig: ("rollouts", "Of the algorithms that learn from their own answers"),
    online.ReferencedConfig: ("rollouts and a reference", "Of those that measure their answers against a reference policy"),
    online.OnlineConfig: ("the clipped surrogate", "Of those that learn from their answers as PPO does"),
}
"""The settings that several algorithms share: the heading, and which algorithms they are."""


def main(folder: Path) -> None:
    """Write the pages, as Markdown below a page's own title."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (folder / f"{name}.md").write_text("\n".join(make()) + "\n")


# --- settings


def settings() -> Iterator[str]:
    """Every setting, by section. An algorithm's or backend's part has its own settings, and those that it has in another way than all."""
    whole = Experiment.model_fields
    yield from section("Experiment", "", {name: whole[name] for name in ("name", "seed")})
    yield "## job\n"
    for name in modules.job_names():
        config = modules.find_job(name).Config
        yield from section(f"job={name}", "job", own(config, ()), doc(config), level=3)
    for name, info in whole.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel) and name not in ("job", "algorithm", "backend"):
            yield from section(name, name, info.annotation.model_fields, doc(info.annotation))
    yield from _algorithms()
    yield from _rewards()
    yield "## backend\n"
    yield from section("Every backend", "backend", own(backends.Config, ()), doc(backends.Config), level=3)
    told: dict[str, str] = {}
    for name in backends.names():
        config = backends.find(name).Config
        fields = own(config, (backends.Config,))
        same = told.setdefault("".join(map(repr, fields.values())), name)
        if same != name:
            yield f"### backend={name}\n\nThe settings of `backend={same}`.\n"
        else:
            yield from section(f"backend={name}", "backend", fields, doc(config), level=3)


def _algorithms() -> Iterator[str]:
    yield "## algorithm\n"
    yield from section("Every algorithm", "algorithm", own(AlgorithmConfig, ()), doc(AlgorithmConfig), level=3)
    configs = {name: modules.find_algorithm(name).Config for name in modules.algorithm_names()}
    for shared, (heading, what) in SHARED.items():
        names = ", ".join(f"`{name}`" for name, config in configs.items() if issubclass(config, shared))
        bases = [base for base in (AlgorithmConfig, *SHARED) if base is not shared and issubclass(shared, base)]
        yield from section(f"Algorithms with {heading}", "algorithm", own(shared, bases), f"{what}: {names}.", level=3)
    for name, config in configs.items():
        bases = [base for base in SHARED if issubclass(config, base)] or [AlgorithmConfig]
        what = f"{(sys.modules[config.__module__].__doc__ or '').splitlines()[0]} May be changed while it runs: {', '.join(f'`{key}`' for key in config.live)}."
        yield from section(f"algorithm={name}", "algorithm", own(config, bases), what, level=3)


def _rewards() -> Iterator[str]:
    yield "## Rewards\n\nA component of `algorithm.rewards` is `NAME: {KIND: …, weight: …}`, of exactly one kind.\n"
    fields = online.reward_model().model_fields
    yield from table(SETTING, rows("algorithm.rewards.NAME", {name: info for name, info in fields.items() if name == "weight"}))
    for kind in online.reward_kinds():
        config, what = online.find_reward_kind(kind).Config, fields[kind].description or ""
        below = config.model_fields if isinstance(config, type) and issubclass(config, BaseModel) else {}
        yield from section(kind, f"algorithm.rewards.NAME.{kind}", below, what, level=3)


SETTING = ("Setting", "Type", "Default", "Bounds", "What it is")


def own(config: type[BaseModel], bases: Sequence[type[BaseModel]]) -> dict[str, FieldInfo]:
    """The fields of a class that none of the bases has, or has with another type, default or bounds; never its name."""

    def told(info: FieldInfo) -> tuple[str, ...]:
        return kind(info), default(info), bounds(info), info.description or ""

    there = [base.model_fields for base in bases]
    return {
        name: info
        for name, info in config.model_fields.items()
        if name != "name" and not any(name in fields and told(fields[name]) == told(info) for fields in there)
    }


def section(title: str, path: str, fields: dict[str, FieldInfo], what: str = "", level: int = 2) -> Iterator[str]:
    yield f"{'#' * level} {title}\n"
    if what:
        yield f"{prose(what)}\n"
    if fields:
        yield from table(SETTING, rows(path, fields))


def rows(path: str, fields: dict[str, FieldInfo]) -> Iterator[tuple[str, ...]]:
    """A row a setting, those within another below it. Several of one type are described once."""
    before: dict[type[BaseModel], str] = {AlgorithmConfig: "algorithm", Model: "model"}
    for name, info in fields.items():
        key = f"{path}.{name}" if path else name
        if name == "name" and path and len(get_args(info.annotation)) < 2:  # the choice itself, in the heading
            continue
        part = part_of(info)
        if part is None:
            yield f"`{key}`", kind(info), default(info), bounds(info), prose(info.description or "")
        elif part in before:
            yield f"`{key}`", f"as `{before[part]}`", "empty" if info.default is None else "", "", prose(info.description or "")
        else:
            base = next((base for base in before if issubclass(part, base)), None)
            inner = own(part, (base,)) if base else part.model_fields
            if base:
                yield f"`{key}`", f"as `{before[base]}`, and:", "", "", prose(info.description or doc(part))
            before[part] = key
            yield from rows(key, inner)


def part_of(info: FieldInfo) -> type[BaseModel] | None:
    """The settings below a field, where it holds some."""
    found = [each for each in (info.annotation, *get_args(info.annotation)) if isinstance(each, type) and issubclass(each, BaseModel)]
    return found[0] if found and get_origin(info.annotation) not in (dict, tuple) else None


def kind(info: FieldInfo) -> str:
    return _type(info.annotation)


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is tuple:
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return "mapping of names"
    if parts and NoneType in parts:
        return f"{_type(next(part for part in parts if part is not NoneType))}, or empty"
    if parts:  # Annotated
        return _type(parts[0])
    if issubclass(annotation, BaseModel):
        return "settings"
    if issubclass(annotation, Enum):
        return ", ".join(f"`{each.value}`" for each in annotation)
    return {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}[annotation]


def default(info: FieldInfo) -> str:
    return "required" if info.is_required() else value(info.get_default(call_default_factory=True))


def value(found: object) -> str:
    if found is None or found == "":
        return "empty"
    if isinstance(found, list | tuple | dict):
        return "`{}`" if isinstance(found, dict) else f"`[{','.join(map(str, found))}]`"
    return f"`{str(found).lower() if isinstance(found, bool) else found}`"


def bounds(info: FieldInfo) -> str:
    """What pydantic checks, and in which form; what goes with other settings is in the messages."""
    found = []
    for each in info.metadata:
        match each:
            case annotated_types.Ge(ge=limit):
                found.append(f"≥ {limit}")
            case annotated_types.Gt(gt=limit):
                found.append(f"> {limit}")
            case annotated_types.Le(le=limit):
                found.append(f"≤ {limit}")
            case annotated_types.Lt(lt=limit):
                found.append(f"< {limit}")
            case annotated_types.MinLen(min_length=limit):
                found.append(f"at least {limit} long")
            case annotated_types.MaxLen(max_length=limit):
                found.append(f"at most {limit} long")
            case StringConstraints(pattern=str(pattern)):
                found.append(f"`{pattern}`")
            case _ if pattern := getattr(each, "pattern", None):
                found.append(f"`{pattern}`")
            case _:
                pass  # how a value is read, which bounds nothing
    return ", ".join(found)


# --- metrics, events, commands


def registered() -> list[Metric]:
    """Every metric, those of a family by a member with … in the place of its part."""
    return sorted([*metrics.METRICS.values(), *(family("…") for family in metrics.FAMILIES)], key=lambda each: each.order)


def metrics_page() -> Iterator[str]:
    for group in metrics.GROUPS:
        yield f"## {group}\n"
        members = [each for each in registered() if each.group == group]
        yield from table(
            ("Metric", "Title", "Unit", "Averaging", "What it is"),
            ((f"`{each}`", prose(each.heading), prose(each.unit), str(each.averaging), prose(each.help)) for each in members),
        )


def events_page() -> Iterator[str]:
    types = get_type_hints(lines.Event)
    for name, each in lines.KINDS.items():
        yield f"## {name}\n\n{prose(each.help)}\n"
        fields = [*((field, "") for field in each.fields), *((field, "where it is known") for field in each.optional)]
        yield from table(("Field", "Type", ""), ((f"`{field}`", _json(types.get(field)), note) for field, note in fields))


def _json(annotation: Any) -> str:
    """A field's type as JSON has it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is list:
        return f"list of {_json(parts[0])}"
    if origin is dict or annotation is lines.Diagnostics:
        return "mapping"
    return {int: "whole number", float: "number", str: "text", None: ""}[annotation]


def commands(found: Any = None, words: str = "workbench", level: int = 2) -> Iterator[str]:
    """Every command with its arguments and options, those of a group below it."""
    found = found or typer.main.get_command(app)
    for name, command in found.commands.items():
        full, inner = f"{words} {name}", hasattr(command, "commands")
        yield f"{'#' * level} {full}\n\n{prose(command.help or '')}\n"
        if inner:
            yield from commands(command, full, level + 1)
            continue
        parameters = [parameter for parameter in command.params if parameter.name != "help"]
        usage = [_usage(parameter) for parameter in parameters if not is_option(parameter)]
        yield f"```text\n{' '.join([full, *usage, *(['[OPTIONS]'] if any(map(is_option, parameters)) else [])])}\n```\n"
        yield from table(("Argument or option", "Type", "Default", "What it is"), map(_parameter, parameters))


def is_option(parameter: Any) -> bool:
    return parameter.opts[0].startswith("-")


def metavar(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper()


def _usage(parameter: Any) -> str:
    word = metavar(parameter) + ("..." if parameter.nargs == -1 else "")
    return word if parameter.required else f"[{word}]"


def _parameter(parameter: Any) -> tuple[str, ...]:
    info, annotation = parameter.type_descriptor.parameter_info, parameter.type_descriptor.annotation
    if annotation is bool:
        typed, shown = "flag", ("/".join((*parameter.opts, *parameter.secondary_opts)) if parameter.secondary_opts else ", ".join(parameter.opts))
        start = parameter.opts[-1] if parameter.default else parameter.secondary_opts[-1] if parameter.secondary_opts else "off"
    else:
        limits = [f"{sign} {limit}" for sign, limit in (("≥", info.min), ("≤", info.max)) if limit is not None]
        typed, shown = ", ".join([_type(annotation), *limits]), ", ".join(parameter.opts) if is_option(parameter) else metavar(parameter)
        found = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
        start = "required" if parameter.required else "" if found is None else str(found)
    return f"`{shown}`", typed, start if start in ("", "required", "off") else f"`{start}`", prose(parameter.help or "")


# --- Markdown


def table(head: Sequence[str], found: Iterable[Sequence[str]]) -> Iterator[str]:
    listed = [*found]
    if listed:
        yield "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in (head, ["---"] * len(head), *listed)) + "\n"


def prose(text: str) -> str:
    """A description as Markdown's text: what is in backticks is code, everything else stands as it is."""
    parts = " ".join(text.split()).split("`")
    for i in range(0, len(parts), 2):
        for mark in "\\*_<>[]{}":
            parts[i] = parts[i].replace(mark, f"\\{mark}")
    return "`".join(parts)


def doc(config: type[BaseModel]) -> str:
    """A class's own first paragraph; nothing where it has none."""
    return (config.__dict__.get("__doc__") or "").split("\n\n")[0]


PAGES = {"api": api, "settings": settings, "metrics": metrics_page, "events": events_page, "commands": commands}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
