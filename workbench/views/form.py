"""A form made from the typed experiment, as plain descriptions that the app and the notebooks draw: every field with its kind, label, help, bounds and value.

`describe` gives the parts of a form for a tree, `Form.tree` puts what its fields hold together again, `beside` says which field a problem belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from workbench.backends import base as backends
from workbench.settings import AlgorithmConfig, command_line, modules, stored
from workbench.settings.spec import Experiment
from workbench.settings.upgrade import Tree
from workbench.views import text

COLUMNS = 3
TITLES = {"": "General", "checkpoint": "Checkpoints", "rollout": "Rollouts", "watch": "Hang watch"}
"""Of the sections that are not called what their key says."""
Kind = Literal["choice", "choices", "words", "mapping", "switch", "integer", "number", "text"]
NAMED = ("job", "algorithm", "backend")
"""Sections whose settings their name gives."""


@dataclass(frozen=True)
class Field:
    """One setting. `key` is dotted; `value` is what the tree holds, else the default."""

    key: str
    name: str
    kind: Kind
    value: object
    description: str = ""
    bounds: str = ""
    options: tuple[object, ...] = ()
    optional: bool = False

    @property
    def label(self) -> str:
        return text.title(self.name)

    @property
    def placeholder(self) -> str:
        return "empty" if self.optional else "required"

    @property
    def named(self) -> tuple[object, ...]:
        """The value of a field that holds several."""
        return tuple(self.value) if isinstance(self.value, list | tuple) else ()

    @property
    def number(self) -> float | int | None:
        """The value of a number; None for none, and for what is no number."""
        if not isinstance(self.value, int | float) or isinstance(self.value, bool):
            return None
        return int(self.value) if self.kind == "integer" else float(self.value)

    @property
    def step(self) -> float | int:
        """How far one press of an arrow goes: the power of ten of the value."""
        if self.kind == "integer":
            return 1
        return 10.0 ** math.floor(math.log10(abs(self.number))) if self.number else 0.1

    @property
    def yaml(self) -> str:
        """The value of a mapping, or of a list of some, as it is typed."""
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return yaml.safe_dump(value, sort_keys=False) if value else ""

    def mapped(self, entered: str) -> object:
        """What was typed for a mapping, or for a list of some: YAML; what is none stays text, which the check refuses."""
        if not entered.strip():
            return None if self.optional else [] if isinstance(self.value, list | tuple) else {}
        try:
            return yaml.safe_load(entered)
        except yaml.YAMLError:
            return entered

    def typed(self, entered: str) -> str | None:
        """What a text field that holds this means: an optional one is None where it is empty."""
        return entered if entered or not self.optional else None


@dataclass(frozen=True)
class Part:
    """Some settings of one section: its plain fields in rows, the groups of settings below it, and those that are folded away.

    `rows` are (fields side by side, fields); `fixed` are values that nothing is drawn for; `order` names the plain fields and the fixed ones.
    """

    path: str
    title: str
    help: str
    rows: tuple[tuple[int, tuple[Field, ...]], ...]
    fixed: Mapping[str, object]
    order: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    folded: tuple[Part, ...] = ()
    changed: bool = False
    """Whether a folded one holds other values than the defaults."""

    def fields(self) -> Iterator[Field]:
        """The fields of this part and of those in it, in the order of a form."""
        for _, fields in self.rows:
            yield from fields
        for part in (*self.parts, *self.folded):
            yield from part.fields()

    def places(self) -> Iterator[str]:
        """Where a problem can be put: the part itself, its fields, and those of the parts in it."""
        yield self.path
        yield from (field.key for _, fields in self.rows for field in fields)
        for part in (*self.parts, *self.folded):
            yield from part.places()

    def tree(self, read: Callable[[Field], object]) -> Tree:
        """The values by name, where `read` gives what a field holds."""
        drawn = {field.name: field for _, fields in self.rows for field in fields}
        values: Tree = {name: read(drawn[name]) if name in drawn else self.fixed[name] for name in self.order}
        values |= {part.path.rpartition(".")[2]: part.tree(read) for part in self.parts}
        for part in self.folded:
            values |= part.tree(read)
        return values


@dataclass(frozen=True)
class Form:
    """All sections that the tree's kind of job reads, the general settings first.

    `kept` are sections that it does not read, or that have nothing to set; `unknown` the tree's keys that this version has no setting for.
    """

    sections: tuple[Part, ...]
    kept: Mapping[str, object]
    unknown: tuple[str, ...]

    def fields(self) -> Iterator[Field]:
        for section in self.sections:
            yield from section.fields()

    def tree(self, read: Callable[[Field], object]) -> Tree:
        """The whole tree, in the experiment's order, where `read` gives what a field holds."""
        values: Tree = dict(self.kept)
        for section in self.sections:
            values |= {section.path: section.tree(read)} if section.path else section.tree(read)
        return {name: values[name] for name in Experiment.model_fields if name in values}


def describe(tree: Tree) -> Form:
    """The form of a resolved tree."""
    models = {name: _model_of(name, info, tree) for name, info in Experiment.model_fields.items()}
    plain = {name: info for name, info in Experiment.model_fields.items() if models[name] is None}
    unknown = sorted(tree.keys() - Experiment.model_fields.keys())
    sections, kept = [_plain("", TITLES[""], "", plain, tree, in_one_row=True)], {}
    for name, model in models.items():
        if model is None:
            continue
        if name not in command_line.sections_of(tree) or not model.model_fields.keys() - {"name"}:  # nothing to set: as it is
            kept |= {name: tree[name]} if name in tree else {}
        else:
            title = text.title(stored.job(tree)) if name == "job" else TITLES.get(name, text.title(name))
            sections.append(_section(name, title, model, tree.get(name) or {}, unknown))
    return Form(tuple(sections), kept, tuple(unknown))


def beside(problems: Sequence[tuple[str, str]], places: Collection[str]) -> list[tuple[str, str]]:
    """(place, message) of each problem: at its field, or at the nearest section that holds it; "" is that of the general settings."""
    placed = []
    for key, what in problems:
        slot = key
        while slot and slot not in places:
            slot = slot.rpartition(".")[0]
        placed.append((slot, what if slot == key else f"{key}: {what}"))
    return placed


def option(value: object) -> str:
    """One of a field's choices, for people."""
    return "empty" if value is None else str(value)


def _section(path: str, title: str, model: type[BaseModel], tree: Tree, unknown: list[str]) -> Part:
    """The fields of a model; keys of the tree that it does not have are added to `unknown`."""
    fields = _own_first(model)
    unknown += sorted(f"{path}.{name}" for name in tree.keys() - fields.keys())
    folded: Mapping[str, Sequence[str]] = getattr(model, "folded", {})
    hidden = {name for names in folded.values() for name in names}
    own = {name: info for name, info in fields.items() if name not in hidden}
    shut = []
    for heading, names in folded.items():
        of = f"{heading} of the {text.title(path.rpartition('.')[2]).lower()}" if "." in path else heading
        changed = any(tree.get(name, default) != default for name in names for default in [_default(fields[name])])
        shut.append(_plain(path, of, "", {name: fields[name] for name in names}, tree, unknown=unknown, changed=changed))
    return _plain(path, title, (model.__doc__ or "").split("\n")[0], own, tree, unknown=unknown, folded=tuple(shut))


def _plain(
    path: str,
    title: str,
    help: str,
    fields: Mapping[str, FieldInfo],
    tree: Tree,
    *,
    unknown: list[str] | None = None,
    folded: tuple[Part, ...] = (),
    changed: bool = False,
    in_one_row: bool = False,
) -> Part:
    """The plain fields, then each nested group of settings as a part of its own."""
    nested = {name: inner for name, info in fields.items() if (inner := _nested(info.annotation)) is not None}
    absent = [name for name in nested if _unwrap(fields[name].annotation)[1] and tree.get(name) is None]  # optional, and left out
    fixed: dict[str, object] = {"name": tree["name"]} if path in NAMED and "name" in fields else {}
    nested = {name: inner for name, inner in nested.items() if name not in absent}  # those are typed as YAML
    order = tuple(dict.fromkeys([*fixed, *(name for name in fields if name not in nested)]))
    fixed |= {name: get_args(kind)[0] for name, info in fields.items() if name not in fixed and len(get_args(kind := _choice_of(info))) == 1}
    drawn = {name: info for name, info in fields.items() if name not in fixed and name not in nested}
    made = {name: _field(f"{path}.{name}" if path else name, name, info, tree) for name, info in drawn.items()}
    rows = [(COLUMNS, list(drawn))] if in_one_row else _rows(made)
    parts = tuple(
        _section(f"{path}.{name}" if path else name, text.title(name), inner, tree.get(name) or {}, [] if unknown is None else unknown)
        for name, inner in nested.items()
    )
    in_rows = tuple((width, tuple(made[name] for name in names)) for width, names in rows if names)
    return Part(path, title, help, in_rows, fixed, order, parts, folded, changed)


def _field(key: str, name: str, info: FieldInfo, tree: Tree) -> Field:
    kind, optional = _unwrap(info.annotation)
    value = tree.get(name, _default(info))
    origin = get_origin(kind)
    options: tuple[object, ...] = ()
    shape: Kind
    if origin is Literal:
        shape, options = "choice", (*((None,) if optional else ()), *get_args(kind))
    elif (isinstance(kind, type) and issubclass(kind, BaseModel)) or (origin is tuple and _is_typed(get_args(kind)[0])):
        shape = "mapping"
    elif origin is tuple:
        item, _ = _unwrap(get_args(kind)[0])
        options = get_args(item)
        shape = "choices" if options else "words"
    else:
        shape = "mapping" if origin is dict else _PLAIN.get(kind, "text")
    return Field(key, name, shape, value, info.description or "", _bounds(info), options, optional)


def _is_typed(item: object) -> bool:
    """Whether a list of these is typed as YAML: of mappings, or of numbers, among which may be equal ones."""
    kind, _ = _unwrap(item)
    return get_origin(kind) is dict or kind in (int, float)


_PLAIN: Mapping[object, Kind] = {bool: "switch", int: "integer", float: "number"}


def _rows(fields: Mapping[str, Field]) -> list[tuple[int, list[str]]]:
    """Texts in wide columns, then numbers and choices, then switches."""
    texts = [name for name, field in fields.items() if field.kind in ("text", "mapping")]
    switches = [name for name, field in fields.items() if field.kind == "switch"]
    return [(2, texts), (COLUMNS, [name for name in fields if name not in texts and name not in switches]), (COLUMNS, switches)]


def _choice_of(info: FieldInfo) -> object:
    """The type of a field that is one of some words; nothing that has arguments for others."""
    kind, optional = _unwrap(info.annotation)
    return kind if get_origin(kind) is Literal and not optional else None


def _bounds(info: FieldInfo) -> str:
    signs = ((annotated_types.Ge, "≥", "ge"), (annotated_types.Gt, ">", "gt"), (annotated_types.Le, "≤", "le"), (annotated_types.Lt, "<", "lt"))
    return ", ".join(f"{sign} {getattr(m, name):g}" for kind, sign, name in signs for m in info.metadata if isinstance(m, kind))


def _unwrap(annotation: object) -> tuple[object, bool]:
    """The type without its None and its constraints, and whether it had a None."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = [part for part in parts if part is not NoneType]
    kind = get_args(kinds[0])[0] if get_origin(kinds[0]) is Annotated else kinds[0]
    return kind, len(kinds) < len(parts)


def _nested(annotation: object) -> type[BaseModel] | None:
    kind, _ = _unwrap(annotation)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _model_of(name: str, info: FieldInfo, tree: Tree) -> type[BaseModel] | None:
    """The model of a section: for the job, the algorithm and the backend the one that their name gives."""
    if name == "job":
        return modules.find_job(stored.job(tree)).Config
    if name == "algorithm":
        algorithm = tree.get("algorithm", {}).get("name", modules.NO_ALGORITHM)
        return AlgorithmConfig if algorithm == modules.NO_ALGORITHM else modules.find_algorithm(algorithm).Config
    if name == "backend":
        return backends.find(tree["backend"]["name"]).Config
    return _nested(info.annotation)


def _own_first(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """An algorithm's own keys before those that every algorithm has."""
    shared = AlgorithmConfig.model_fields if issubclass(model, AlgorithmConfig) else {}
    own = {name: info for name, info in model.model_fields.items() if name not in shared}
    return own | {name: model.model_fields[name] for name in shared}


def _default(info: FieldInfo) -> object:
    value = None if info.is_required() else info.get_default(call_default_factory=True)
    return value.model_dump() if isinstance(value, BaseModel) else value
