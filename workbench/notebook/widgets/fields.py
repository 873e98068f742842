"""The inputs of a form's fields and sections: `workbench.views.form` describes them, ipywidgets draw them, and each has its problem beside it."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import ipywidgets

from workbench.notebook.widgets import parts
from workbench.views import form
from workbench.views.form import Field, Part

COUNTED = {"integer": int, "number": float}


@dataclass
class Problem:
    """The place of a problem, empty where there is none."""

    widget: ipywidgets.HTML = field(default_factory=lambda: ipywidgets.HTML(layout={"display": "none"}))

    def show(self, messages: list[str]) -> None:
        shown = "".join(f'<div class="wb-problem" role="alert">{parts.plain(each)}</div>' for each in messages)
        if shown != self.widget.value:
            self.widget.value = shown
            self.widget.layout.display = None if shown else "none"


class Input:
    """One setting: an input by its type, what it is about in its tooltip, and its problem below it."""

    def __init__(self, of: Field, changed: Callable[[], None]) -> None:
        self.of = of
        self.widget = _widget(of)
        self.problem = Problem()
        self.widget.observe(lambda _: changed(), "value")
        labelled = [ipywidgets.Label(of.label)] if of.kind in ("choices", "words") else []  # a list of tags draws no label of its own
        self.box = ipywidgets.VBox([*labelled, self.widget, self.problem.widget])
        self.box.add_class("wb-field")
        if of.kind in ("text", "mapping"):
            self.box.add_class("wb-wide")

    @property
    def value(self) -> object:
        """What the settings hold when they are made of this input."""
        value = self.widget.value
        if self.of.kind == "mapping":
            return self.of.mapped(value)
        if self.of.kind in ("choices", "words"):
            return list(value)
        if isinstance(self.widget, ipywidgets.Text):
            return _counted(self.of, value) if self.of.kind in COUNTED else self.of.typed(value)
        return value


class Section:
    """The inputs of one section, which folds away, with its problems in its title and its body.

    What is folded away is made when it is first opened: until then its settings are those that the form was described with.
    """

    def __init__(self, part: Part, opened: bool, changed: Callable[[], None]) -> None:
        self.part = part
        self.made: dict[str, Input] = {}
        """The inputs that there are yet, by their keys."""
        self._changed = changed
        self._places: dict[str, Problem] = {}
        self._problems: Mapping[str, list[str]] = {}
        self._unmade: list[Callable[[], None]] = []
        self.widget = self._folding(part, opened)

    @property
    def inputs(self) -> dict[str, Input]:
        """Every input of the section by its key, made now where it was not yet."""
        while self._unmade:
            self._unmade[0]()
        return self.made

    def value(self, field: Field) -> object:
        """What the settings hold for a field."""
        return self.made[field.key].value if field.key in self.made else field.value

    def show(self, problems: Mapping[str, list[str]]) -> None:
        """Put each message at its place, and their number into the title."""
        self._problems = problems
        for slot, problem in (*self._places.items(), *((key, each.problem) for key, each in self.made.items())):
            problem.show(problems.get(slot, []))
        count = sum(len(problems.get(slot, ())) for slot in set(self.part.places()))
        title = self.part.title + (f" · {count} {'problem' if count == 1 else 'problems'}" if count else "")
        if self.widget.titles != (title,):
            self.widget.titles = (title,)

    def _folding(self, part: Part, opened: bool) -> ipywidgets.Accordion:
        body = ipywidgets.VBox()
        folding = ipywidgets.Accordion([body], titles=(part.title,), selected_index=0 if opened else None)

        def make() -> None:
            self._unmade.remove(make)
            body.children = self._children(part)
            self.show(self._problems)

        def opened_or_shut(_: object) -> None:
            if folding.selected_index == 0 and make in self._unmade:
                make()

        folding.observe(opened_or_shut, "selected_index")
        if opened:
            body.children = self._children(part)
        else:
            self._unmade.append(make)
        return folding

    def _children(self, part: Part) -> list[ipywidgets.Widget]:
        """The plain fields, then each nested group of settings under a heading of its own, then what is folded away."""
        children: list[ipywidgets.Widget] = []
        if part.path not in self._places:  # what is folded away has its section's place
            self._places[part.path] = Problem()
            children.append(self._places[part.path].widget)
        for _, fields in part.rows:
            made = [Input(each, self._changed) for each in fields]
            self.made |= {each.of.key: each for each in made}
            row = ipywidgets.Box([each.box for each in made])
            row.add_class("wb-fields")
            children.append(row)
        for inner in part.parts:
            children.append(ipywidgets.HTML(f'<div class="wb-title" title="{html.escape(inner.help)}">{parts.plain(inner.title)}</div>'))
            children += self._children(inner)
        children += [self._folding(folded, folded.changed) for folded in part.folded]
        return children


def close_all(widget: ipywidgets.Widget) -> None:
    """Close a widget with everything in it."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    if isinstance(widget, ipywidgets.DOMWidget):
        widget.layout.close()
    if (style := getattr(widget, "style", None)) is not None:
        style.close()
    widget.close()


def _widget(of: Field) -> ipywidgets.ValueWidget:
    """Numbers are without bounds: a widget would keep a value that is out of them to itself, and the form would keep the one before."""
    common = {"description": of.label, "tooltip": _help(of)}
    if of.kind == "choice":
        value = of.value if of.value in of.options else of.options[0]
        return ipywidgets.Dropdown(options=[(form.option(each), each) for each in of.options], value=value, **common)
    if of.kind == "choices":
        return ipywidgets.TagsInput(value=[each for each in of.named if each in of.options], allowed_tags=list(of.options), **common)
    if of.kind == "words":
        return ipywidgets.TagsInput(value=list(map(str, of.named)), placeholder="type, then Enter", **common)
    if of.kind == "mapping":
        return ipywidgets.Textarea(value=of.yaml, rows=4, placeholder="name: value", **common)
    if of.kind == "switch":
        return ipywidgets.Checkbox(value=bool(of.value), indent=False, **common)
    if of.kind in COUNTED and of.number is not None and not of.optional:
        return _number(of, common)
    return ipywidgets.Text(value="" if of.value is None else str(of.value), placeholder=of.placeholder, **common)


def _number(of: Field, common: dict[str, str]) -> ipywidgets.ValueWidget:
    if of.kind == "integer":
        return ipywidgets.IntText(value=of.number, **common)
    return ipywidgets.FloatText(value=of.number, step=of.step, **common)


def _counted(of: Field, typed: str) -> object:
    """A number that was typed; what is none stays text, which the check refuses."""
    text = typed.strip()
    try:
        return COUNTED[of.kind](text) if text else of.typed(text)
    except ValueError:
        return typed


def _help(of: Field) -> str:
    return "\n".join(part for part in (of.description, f"{of.key} {of.bounds}".strip()) if part)
