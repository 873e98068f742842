"""The frame around every page: the logo, the style sheet, and small parts that several pages draw."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from workbench.rundir.store import Status
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
    st.badge(status.state.capitalize(), icon=f":material/{text.STATE_ICONS[status.state]}:", color=text.STATE_COLOURS[status.state])


def plain(words: str) -> str:
    """Text from elsewhere, for markdown: nothing in it is markup, and no character hides."""
    return "".join(f"\\{char}" if char in r"\`*_{}[]()#+-.!|<>~:$&" else char for char in text.visible(words))


def code(words: object) -> str:
    """Text from elsewhere, for markdown, as code in a line: its own backticks do not end it."""
    shown = " ".join(text.visible(str(words)).split("\n"))
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence} {shown} {fence}" if "`" in shown else f"`{shown}`"


def sentence(words: str) -> str:
    """Text from elsewhere, for markdown, as a sentence."""
    return f"{plain(words[:1].upper() + words[1:])}."


def refreshed(draw: Callable[..., None], every: float | None = None) -> Callable[..., None]:
    """`draw` as a fragment in a place of its own, drawn again every so many seconds.

    What a fragment drew is dropped where its next run begins before that was sent to the browser (streamlit 1.67). Without a container around it
    the elements after it would move up meanwhile, and be overwritten when it is drawn again.
    """

    def placed(*args: Any) -> None:
        with st.container():
            st.fragment(draw, run_every=every)(*args)

    return placed


def note_page(title: str) -> None:
    """The browser tab's title."""
    st.set_page_config(page_title=f"{title} · Alignment Workbench")
