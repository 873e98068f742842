"""Draws the form that `workbench.views.form` describes: every field with its description, bounds and default, and its problem beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui import frame
from workbench.views import form
from workbench.views.form import Field, Part

ICONS = {
    "job": "play_circle",
    "algorithm": "function",
    "model": "neurology",
    "data": "dataset",
    "validation": "fact_check",
    "checkpoint": "save",
    "rollout": "quiz",
    "watch": "notifications_active",
    "backend": "dns",
}


@dataclass
class Form:
    """Draws the fields of the sections that the tree's kind of job reads, and collects their values. `key` names a field's widget; another name gives it its default back.

    `unknown` are the tree's keys that no field is drawn for, because this version has no such setting.
    """

    key: Callable[[str], str]
    slots: dict[str, DeltaGenerator] = field(default_factory=dict)
    unknown: Sequence[str] = ()

    def draw(self, tree: dict[str, Any]) -> dict[str, Any]:
        """The whole form, starting from a resolved tree. Returns the tree that its widgets hold."""
        described, values = form.describe(tree), dict[str, object]()
        self.unknown = described.unknown
        for section in described.sections:
            icon = f":material/{ICONS[section.path]}: " if section.path in ICONS else ""
            with st.container(border=True, key=f"section-{section.path or 'general'}"):
                st.markdown(f"#### {icon}{section.title}", anchors=False)
                self.slots[section.path] = st.container()
                values |= self._part(section)
        return described.tree(lambda field: values[field.key])

    def show(self, problems: list[tuple[str, str]]) -> None:
        """Put each problem beside its field, or at the nearest section that holds it."""
        for slot, message in form.beside(problems, self.slots):
            self.slots[slot].caption(f":red[:material/error: {frame.plain(message)}]")

    def _part(self, part: Part) -> dict[str, object]:
        """The plain fields as a grid, then each nested group of settings under a heading of its own, then what is folded away."""
        values: dict[str, object] = {}
        for width, fields in part.rows:
            for start in range(0, len(fields), width):
                for each, column in zip(fields[start : start + width], st.columns(width, gap="medium"), strict=False):
                    with column:
                        values[each.key] = self._widget(each)
                        self.slots[each.key] = st.empty()
        for inner in part.parts:
            st.markdown(f"**{inner.title}**", help=inner.help)
            self.slots[inner.path] = st.container()
            values |= self._part(inner)
        for folded in part.folded:
            with st.expander(folded.title, expanded=folded.changed):
                values |= self._part(folded)
        return values

    def _widget(self, of: Field) -> object:
        help_text = f"{of.description}\n\n`{of.key}`" + (f" {of.bounds}" if of.bounds else "")
        common: dict[str, Any] = {"key": self.key(of.key), "help": help_text, "persist_state": "session"}
        options: list[Any] = list(of.options)
        if of.kind == "choice":
            index = options.index(of.value) if of.value in options else 0
            return st.selectbox(of.label, options, index=index, format_func=form.option, **common)
        if of.kind == "choices":
            chosen = [item for item in of.named if item in options]
            return st.pills(of.label, options, default=chosen, selection_mode="multi", wrap=True, **common)
        if of.kind == "words":
            named: list[Any] = list(of.named)
            return st.multiselect(of.label, named, default=named, accept_new_options=True, placeholder="type, then Enter", **common)
        if of.kind == "mapping":
            return of.mapped(st.text_area(of.label, value=of.yaml, height=120, **common))
        if of.kind == "switch":
            return st.toggle(of.label, value=bool(of.value), **common)
        if of.kind in ("integer", "number"):
            return _number(of, common)
        value = "" if of.value is None else str(of.value)
        return of.typed(st.text_input(of.label, value=value, placeholder=of.placeholder, live=True, **common))


def _number(of: Field, common: dict[str, Any]) -> float | int | None:
    """Without bounds: a widget would keep a value that is out of them to itself, and the form would keep the one before."""
    number: Any = of.number
    step: Any = of.step
    return st.number_input(of.label, value=number, step=step, format="%d" if of.kind == "integer" else "%g", placeholder=of.placeholder, **common)
