"""The frame around every page: the logo, the style sheet, and small parts that several pages draw."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from workbench.store import Status
from workbench.views import figures, text


def draw(static: Path) -> None:
    """The logo in the theme's colours, and the style sheet."""
    st.logo(str(static / f"logo-{'dark' if dark() else 'light'}.svg"), size="large")
    st.html(Path(__file__).with_name("frame.css"))


def dark() -> bool:
    return st.context.theme.type == "dark"


def theme() -> figures.Theme:
    """The colours for figures drawn on the server."""
    return figures.DARK if dark() else figures.LIGHT


def state_badge(status: Status) -> None:
    st.badge(status.state.capitalize(), icon=f":material/{text.STATE_ICONS[status.state]}:", color=text.STATE_COLOURS[status.state])  # type: ignore[arg-type]


def plain(words: str) -> str:
    """Text from elsewhere, for markdown: nothing in it is markup."""
    return "".join(f"\\{char}" if char in r"\`*_{}[]()#+-.!|<>~:$" else char for char in words)


def note_page(title: str) -> None:
    """The browser tab's title."""
    st.set_page_config(page_title=f"{title} · Alignment Workbench")
