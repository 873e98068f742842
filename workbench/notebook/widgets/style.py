"""The style sheets of widgets that bring no script of their own."""

from __future__ import annotations

from pathlib import Path

import ipywidgets

STATIC = Path(__file__).with_name("static")


def style() -> ipywidgets.HTML:
    """As the first child of a widget; it takes no room."""
    sheets = "".join(f"<style>{STATIC.joinpath(name).read_text()}</style>" for name in ("widgets.css", "form.css"))
    return ipywidgets.HTML(sheets, layout={"height": "0", "margin": "0", "overflow": "hidden"})
