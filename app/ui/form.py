"""A form made from the typed experiment: every field with its description, bounds and default, and its problem beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import streamlit as st
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ui import frame
from workbench.backends import base as backends
from workbench.settings import AlgorithmConfig, modules, stored
from workbench.settings.spec import Experiment
from workbench.views import text

COLUMNS = 3
TITLES = {
    "": ("General", ""),
    "job": ("Job", ":material/play_circle:"),
    "algorithm": ("Algorithm", ":material/function:"),
    "model": ("Model", ":material/neurology:"),
    "data": ("Data", ":material/dataset:"),
    "validation": ("Validation", ":material/fact_check:"),
    "checkpoint": ("Checkpoints", ":material/save:"),
    "rollout": ("Rollouts", ":material/quiz:"),
    "watch": ("Hang watch", ":material/notifications_active:"),
    "backend": ("Backend", ":material/dns:"),
}


@dataclass
class Form:
    """Draws the fields of the sections that the tree's kind of job reads, and collects their values. `key` names a field's widget; another name gives it its default back.

    `unknown` are the tree's keys that no field is drawn for, because this version has no such setting.
    """

    key: Callable[[str], str]
    slots: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def draw(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """The whole form, starting from a resolved tree. Returns the tree that its widgets hold."""
        values: dict[str, Any] = {}
        self.unknown = sorted(tree.keys() - Experiment.model_fields.keys())
        plain = {name: info for name, info in Experiment.model_fields.items() if _model_of(name, info, tree) is None}
        with self._section(""):
            values |= self._grid("", plain, tree)
        read = ("job", *modules.find_job(stored.job(tree)).Config.sections)
        for name, info in Experiment.model_fields.items():
            model = _model_of(name, info, tree)
            if model is None:
                continue
            if name not in read or not model.model_fields.keys() - {"name"}:  # nothing to set: as it is
                values |= {name: tree[name]} if name in tree else {}
            else:
                with self._section(name, text.title(tree[name]["name"]) if name == "job" else ""):
                    values[name] = self._fields(name, model, tree.get(name) or {})
        return {name: values[name] for name in Experiment.model_fields if name in values}

    def show(self, problems: list[tuple[str, str]]) -> None:
        """Put each problem beside its field, or at the nearest section that holds it."""
        for key, what in problems:
            field = key
            while field not in self.slots and field:
                field = field.rpartition(".")[0]
            message = what if field == key else f"{key}: {what}"
            self.slots[field].caption(f":red[:material/error: {frame.plain(message)}]")

    def _section(self, name: str, title: str = "") -> Any:
        known, icon = TITLES.get(name, (text.title(name), ""))
        title = title or known
        box = st.container(border=True, key=f"section-{name or 'general'}")
        box.markdown(f"#### {icon} {title}".replace("  ", " "), anchors=False)
        self.slots[name] = box.container()
        return box

    def _fields(self, path: str, model: type[BaseModel], tree: Mapping[str, Any]) -> dict[str, Any]:
        fields = _own_first(model)
        self.unknown += sorted(f"{path}.{name}" for name in tree.keys() - fields.keys())
        folded: Mapping[str, Any] = getattr(model, "folded", {})
        hidden = {name for names in folded.values() for name in names}
        values: dict[str, Any] = {"name": tree["name"]} if _is_named(path) else {}
        values |= self._part(path, {name: info for name, info in fields.items() if name not in values and name not in hidden}, tree)
        for title, names in folded.items():
            changed = any(tree.get(name, default) != default for name in names for default in [_default(fields[name])])
            with st.expander(f"{title} of the {text.title(path.rpartition('.')[2]).lower()}" if "." in path else title, expanded=changed):
                values |= self._part(path, {name: fields[name] for name in names}, tree)
        return values

    def _part(self, path: str, fields: Mapping[str, FieldInfo], tree: Mapping[str, Any]) -> dict[str, Any]:
        """The plain fields as a grid, then each nested group of settings under a heading of its own."""
        nested = {name: model for name, info in fields.items() if (model := _nested(info.annotation)) is not None}
        values = self._grid(path, {name: info for name, info in fields.items() if name not in nested}, tree)
        for name, inner in nested.items():
            if _unwrap(fields[name].annotation)[1] and tree.get(name) is None:  # an optional part that the settings leave out
                values[name] = None
                continue
            st.markdown(f"**{text.title(name)}**", help=(inner.__doc__ or "").split("\n")[0])
            self.slots[f"{path}.{name}"] = st.container()
            values[name] = self._fields(f"{path}.{name}", inner, tree.get(name) or {})
        return values

    def _grid(self, path: str, fields: Mapping[str, FieldInfo], tree: Mapping[str, Any]) -> dict[str, Any]:
        """Texts in wide columns, then numbers and choices, then switches; the values in the fields' own order."""
        values = {name: get_args(kind)[0] for name, info in fields.items() if len(get_args(kind := _choice_of(info))) == 1}
        drawn = {name: info for name, info in fields.items() if name not in values}
        for width, names in _rows(drawn) if path else [(COLUMNS, list(drawn))]:
            for start in range(0, len(names), width):
                for name, column in zip(names[start : start + width], st.columns(width, gap="medium"), strict=False):
                    key = f"{path}.{name}" if path else name
                    with column:
                        values[name] = self._widget(key, name, fields[name], tree.get(name, _default(fields[name])))
                        self.slots[key] = st.empty()
        return {name: values[name] for name in fields}

    def _widget(self, key: str, name: str, info: FieldInfo, value: Any) -> Any:
        kind, optional = _unwrap(info.annotation)
        label, help_text = text.title(name), f"{info.description or ''}\n\n`{key}`{_bounds_text(info)}"
        common: dict[str, Any] = {"key": self.key(key), "help": help_text, "persist_state": "session"}
        if get_origin(kind) is Literal:
            options = [*([None] if optional else []), *get_args(kind)]
            return st.selectbox(label, options, index=options.index(value) if value in options else 0, format_func=_option, **common)
        if get_origin(kind) is tuple:
            item, _ = _unwrap(get_args(kind)[0])
            options = list(get_args(item))
            if not options:  # free words
                named = list(value or ())
                return st.multiselect(label, named, default=named, accept_new_options=True, placeholder="type, then Enter", **common)
            return st.pills(label, options, default=[item for item in value or () if item in options], selection_mode="multi", wrap=True, **common)
        if get_origin(kind) is dict:
            return _mapping(st.text_area(label, value=yaml.safe_dump(value or {}, sort_keys=False) if value else "", height=120, **common))
        if kind is bool:
            return st.toggle(label, value=bool(value), **common)
        if kind in (int, float):
            return _number(label, kind, value, optional, common)
        typed = st.text_input(label, value="" if value is None else str(value), placeholder="empty" if optional else "required", live=True, **common)
        return typed if typed or not optional else None


def _mapping(typed: str) -> Any:
    """The YAML as it was typed; what is none stays text, which the check refuses."""
    try:
        return yaml.safe_load(typed) or {}
    except yaml.YAMLError:
        return typed


def _number(label: str, kind: type, value: Any, optional: bool, common: dict[str, Any]) -> Any:
    """Without bounds: a widget would keep a value that is out of them to itself, and the form would keep the one before."""
    number = kind(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    step: Any = 1 if kind is int else 10.0 ** math.floor(math.log10(abs(number))) if number else 0.1
    layout = {"format": "%d" if kind is int else "%g", "placeholder": "empty" if optional else "required"}
    return st.number_input(label, value=number, step=step, **layout, **common)


def _choice_of(info: FieldInfo) -> Any:
    """The type of a field that is one of some words; nothing that has arguments for others."""
    kind, optional = _unwrap(info.annotation)
    return kind if get_origin(kind) is Literal and not optional else None


def _bounds_text(info: FieldInfo) -> str:
    signs = ((annotated_types.Ge, "≥", "ge"), (annotated_types.Gt, ">", "gt"), (annotated_types.Le, "≤", "le"), (annotated_types.Lt, "<", "lt"))
    parts = [f"{sign} {getattr(m, name):g}" for kind, sign, name in signs for m in info.metadata if isinstance(m, kind)]
    return f" {', '.join(parts)}" if parts else ""


def _unwrap(annotation: Any) -> tuple[Any, bool]:
    """The type without its None and its constraints, and whether it had a None."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds = [part for part in parts if part is not NoneType]
    kind = get_args(kinds[0])[0] if get_origin(kinds[0]) is Annotated else kinds[0]
    return kind, len(kinds) < len(parts)


def _nested(annotation: Any) -> type[BaseModel] | None:
    kind, _ = _unwrap(annotation)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _is_named(path: str) -> bool:
    return path in ("job", "algorithm", "backend")


def _model_of(name: str, info: FieldInfo, tree: Mapping[str, Any]) -> type[BaseModel] | None:
    """The model of a section: for the job, the algorithm and the backend the one that their name gives."""
    if name == "job":
        return modules.find_job(stored.job(tree)).Config
    if name == "algorithm":
        algorithm = tree.get("algorithm", {}).get("name", modules.NO_ALGORITHM)
        return AlgorithmConfig if algorithm == modules.NO_ALGORITHM else modules.find_algorithm(algorithm).Config
    if name == "backend":
        return backends.find(tree["backend"]["name"]).Config
    return _nested(info.annotation)


def _rows(fields: Mapping[str, FieldInfo]) -> list[tuple[int, list[str]]]:
    """(fields in a row, their names): a text needs more room than a number."""
    kinds = {name: _unwrap(info.annotation)[0] for name, info in fields.items()}
    texts = [name for name, kind in kinds.items() if kind is str or get_origin(kind) is dict]
    switches = [name for name, kind in kinds.items() if kind is bool]
    return [(2, texts), (COLUMNS, [name for name in fields if name not in texts and name not in switches]), (COLUMNS, switches)]


def _own_first(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """An algorithm's own keys before those that every algorithm has."""
    shared = AlgorithmConfig.model_fields if issubclass(model, AlgorithmConfig) else {}
    own = {name: info for name, info in model.model_fields.items() if name not in shared}
    return own | {name: model.model_fields[name] for name in shared}


def _default(info: FieldInfo) -> Any:
    value = None if info.is_required() else info.get_default(call_default_factory=True)
    return value.model_dump() if isinstance(value, BaseModel) else value


def _option(value: Any) -> str:
    return "empty" if value is None else str(value)
