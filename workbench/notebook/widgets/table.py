"""A table whose rows can be chosen, by click or key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anywidget

from workbench.views import live

STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Column:
    """Its heading, and whether it has numbers."""

    title: str
    number: bool = False


@dataclass(frozen=True)
class Row:
    """What a row is known by, and its texts."""

    key: str
    cells: Sequence[str]


class Table(anywidget.AnyWidget):
    """`choose` is called with the key of the row that was chosen, `hear` with each message of a view that says that it is there or goes."""

    _esm = STATIC.joinpath("table_widget.js").read_text()
    _css = live.text_of("tokens.css") + STATIC.joinpath("widgets.css").read_text()

    def __init__(self, label: str, choose: Callable[[str], None], hear: Callable[[Mapping[str, object]], None]) -> None:
        self._label, self._choose, self._hear = label, choose, hear
        super().__init__()
        self.on_msg(self._on_message)

    def push(self, columns: Sequence[Column], rows: Sequence[Row], chosen: str, going: bool) -> None:
        """Show these rows in all views."""
        self.send(
            {
                "kind": "rows",
                "label": self._label,
                "columns": [{"title": each.title, "number": each.number} for each in columns],
                "rows": [{"key": each.key, "cells": [*each.cells]} for each in rows],
                "chosen": chosen,
                "going": going,
            }
        )

    def _on_message(self, _: object, content: Mapping[str, object], buffers: object) -> None:
        if content.get("kind") == "choose":
            self._choose(str(content["key"]))
        else:
            self._hear(content)
