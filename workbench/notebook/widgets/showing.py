"""How a widget is shown: as itself where a kernel has it, and as a picture where a saved notebook is read without one.

Beside the widget's own output stands a second one, with the picture. A style in it hides the picture while the widget is drawn, and JupyterLab's
"model not found" where it cannot be. Being an output of its own it can be replaced under its display id, without drawing the widget anew.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Sequence

import ipywidgets
from IPython.core.getipython import get_ipython
from IPython.display import display

from workbench.notebook.widgets.attached import Attached
from workbench.notebook.widgets.subshell import heard_while_a_cell_runs

STYLE = """<style>
.jp-OutputArea-child:has(> .jp-OutputArea-output > .wb-notebook) + .jp-OutputArea-child:has(.wb-picture) { display: none; }
.jp-OutputArea-child:not(:has(.wb-notebook)):has(+ .jp-OutputArea-child .wb-picture) { display: none; }
</style>"""


class Shown(ipywidgets.VBox):
    """A widget with a picture. Subclasses say what the picture and the plain text are."""

    _attached_views: Attached | None = None

    def __init__(self, children: Sequence[ipywidgets.Widget], attached: Attached | None = None) -> None:
        super().__init__(list(children))
        self._attached_views = attached
        self.add_class("wb-notebook")
        self.add_class("wb-body")
        heard_while_a_cell_runs(self)
        self._picture_id = f"workbench-{uuid.uuid4().hex}"
        self._drawn: object = None

    def picture(self) -> str:
        """What is to be seen now, as HTML with inline SVG, without scripts."""
        raise NotImplementedError

    def plain_text(self) -> str:
        """The same in a line."""
        raise NotImplementedError

    def mark(self) -> object:
        """Another one whenever the picture is another."""
        raise NotImplementedError

    def refresh(self) -> None:
        """After a cell was executed: replace the picture where what it shows has changed, and continue where something changes again, as after a resume."""
        self.refresh_picture()
        if self._attached_views:
            self._attached_views.go_on()

    def refresh_picture(self) -> None:
        """Bring the picture below the widget up to date. Without a display of it there is nothing to do."""
        if self._drawn is not None and (now := self.mark()) != self._drawn:
            self._drawn = now
            display(self._picture(self.picture()), raw=True, display_id=self._picture_id, update=True)

    def close(self) -> None:
        """End the thread, and take the widget out of every notebook that shows it."""
        _displayed.discard(self)
        if self._attached_views:
            self._attached_views.close()
        super().close()

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, str] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        return bundle and {**bundle, "text/html": self.picture(), "text/plain": self.plain_text()}

    def _ipython_display_(self) -> None:
        view = super()._repr_mimebundle_()
        self._drawn = self.mark()
        display({**(view or {}), "text/plain": self.plain_text()}, raw=True)
        display(self._picture(self.picture()), raw=True, display_id=self._picture_id)
        _follow(self)

    def _picture(self, picture: str) -> dict[str, str]:
        return {"text/html": f'{STYLE}<div class="wb-picture">{picture}</div>', "text/plain": self.plain_text()}


_displayed: weakref.WeakSet[Shown] = weakref.WeakSet()


def _follow(widget: Shown) -> None:
    """After each cell, pictures of what changed meanwhile are replaced: also where no browser is attached, as when a notebook is executed by a program."""
    shell = get_ipython()
    if shell is None:
        return
    if _refresh_all not in shell.events.callbacks["post_run_cell"]:
        shell.events.register("post_run_cell", _refresh_all)
    _displayed.add(widget)


def _refresh_all(*_: object) -> None:
    for widget in list(_displayed):
        widget.refresh()
