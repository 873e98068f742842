"""The pages of the app: one file each in app/pages/, which says in a literal named `PAGE` where it stands in the navigation."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from ui import access

EXPECTED = 'PAGE = {"title": "Runs", "icon": "list_alt", "section": "Train", "order": 20}'


@dataclass(frozen=True)
class Entry:
    """A page's place in the navigation. `icon` is a Material symbol; `order` counts over all sections; `home` marks the one that opens first.

    `needs` is what its visitor must be: the owner, or in team mode any member, to whom the page shows runs and nothing else of the owner's.
    """

    path: Path
    title: str
    icon: str
    section: str
    order: int
    home: bool = False
    needs: Literal["owner", "member"] = "owner"


def pages(folder: Path) -> Mapping[str, list[StreamlitPage]]:
    """The folder's pages by section, in their order. A page's address is its file's name; the home page's is the root."""
    listed = entries(folder)
    sections: dict[str, list[StreamlitPage]] = {entry.section: [] for entry in listed}
    for entry in listed:
        if entry.needs == "owner" and not access.may_change():
            sections[entry.section].append(_refusing(entry))
            continue
        address = "home" if entry.home else entry.path.stem
        sections[entry.section].append(
            st.Page(entry.path, title=entry.title, icon=f":material/{entry.icon}:", url_path=address, default=entry.home),
        )
        if entry.home:
            sections[entry.section].append(_forwarding(entry.path))
    return sections


def entries(folder: Path) -> list[Entry]:
    """What the folder's files say of themselves, by order. Raises ValueError for a file that does not say it."""
    return sorted((_entry(path, path.stat().st_mtime_ns) for path in folder.glob("[a-z]*.py")), key=lambda entry: (entry.order, entry.path.name))


@lru_cache(maxsize=256)
def _entry(path: Path, _changed_ns: int) -> Entry:
    for node in ast.parse(path.read_text(), str(path)).body:
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "PAGE" for target in node.targets):
            try:
                return Entry(path, **ast.literal_eval(node.value))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}:{node.lineno}: {error}; expected such as {EXPECTED}") from None
    raise ValueError(f"{path} has no PAGE; expected such as {EXPECTED}")


def _refusing(entry: Entry) -> StreamlitPage:
    """What stands at the address of a page that a team's member may not see."""

    def refuse() -> None:
        st.markdown(f"## {entry.title}", anchors=False)
        st.info(f"{access.OWNER_ONLY}.", icon=":material/lock:")
        st.page_link("pages/runs.py", label="All runs", icon=":material/list_alt:")

    return st.Page(refuse, title=entry.title, url_path=entry.path.stem, visibility="hidden")


def _forwarding(home: Path) -> StreamlitPage:
    """Streamlit serves the home page at the root only: whoever asks for it by its file's name is sent there."""

    def forward() -> None:
        st.switch_page(home)

    return st.Page(forward, url_path=home.stem, visibility="hidden")
