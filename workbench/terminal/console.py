"""The terminal that every command writes to: text from elsewhere cannot steer it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich import console
from rich.segment import Segment
from rich.text import Text

from workbench.views.text import visible


class Console(console.Console):
    """As rich's, with the control characters in any text as escapes that show: names, messages and paths are other people's too."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Before a text is measured, so that it has the room that it takes."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: console.RenderableType, options: console.ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
