"""The frame around every page: the logo, the style sheet, and small parts that several pages draw."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from workbench.rundir.store import Status
from workbench.views import figures, live, text

MARKUP = frozenset(r"\`*_{}[]()#+-.!|<>~:$&")


def draw(static: Path) -> None:
    """The logo in the theme's colours, and the style sheet."""
    st.logo(str(static / f"logo-{'dark' if dark() else 'light'}.svg"), size="large")
    st.html(Path(__file__).with_name("frame.css"))
    st.html(live.STATIC / "tokens.css")


def note_viewer(member: str | None) -> None:
    """Below the navigation, who is logged in to a team's app."""
    if member is not None:
        with st.sidebar.container(key="viewer"):
            st.caption(f":material/person: {plain(member)} · team, reading", help="Launching and controlling runs takes the owner's own app.")


def dark() -> bool:
    return st.context.theme.type == "dark"


def theme() -> figures.Theme:
    """The colours for figures drawn on the server."""
    return figures.DARK if dark() else figures.LIGHT


def state_badge(status: Status) -> None:
    st.badge(status.state.capitalize(), icon=f":material/{text.STATE_ICONS[status.state]}:", color=text.STATE_COLOURS[status.state])


def plain(message: str) -> str:
    """Text from elsewhere, for markdown: one line, nothing in it is markup, and no character hides."""
    return "".join(f"\\{char}" if char in MARKUP else char for char in one_line(message))


def code(value: object) -> str:
    """Text from elsewhere, for markdown, as it is and in the type of code: a path, an id. The fence is longer than any within."""
    shown = one_line(str(value))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence} {shown} {fence}" if shown.startswith("`") or shown.endswith("`") else f"{fence}{shown or ' '}{fence}"


def one_line(message: str) -> str:
    return " ".join(text.visible(message).split("\n"))


def sentence(message: str) -> str:
    """Text from elsewhere, for markdown, as a sentence."""
    return f"{plain(message[:1].upper() + message[1:])}."


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
