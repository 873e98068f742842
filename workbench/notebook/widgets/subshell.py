"""Messages of a widget while a cell runs."""

from __future__ import annotations

from collections.abc import Iterator

import ipywidgets


def heard_while_a_cell_runs(widget: ipywidgets.Widget) -> None:
    """Let a widget and those in it hear what JupyterLab sends to a subshell of the kernel.

    ipykernel 7.4 hands a message to the shell that wrote to the widget last, whatever shell the message names: to the main one, where it waits for the
    running cell. Without its note of that shell, the message goes where JupyterLab sends it. Other versions and frontends know of no such note.
    """
    for each in _family(widget):
        if each.comm is not None:
            vars(each.comm)["_reply_subshell_for"] = _as_sent


def _as_sent(_: object, subshell_id: str | None) -> str | None:
    return subshell_id


def _family(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    yield widget
    if isinstance(widget, ipywidgets.Box):
        for child in widget.children:
            yield from _family(child)
