"""The pages of the app: one file each in app/pages/, which says in a literal named `PAGE` where it stands in the navigation."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import streamlit as st
from streamlit.navigation.page import StreamlitPage

EXPECTED = 'PAGE = {"title": "Runs", "icon": "list_alt", "section": "Train", "order": 20}'


@dataclass(frozen=True)
class Entry:
    """A page's place in the navigation. `icon` is a Material symbol; `order` counts over all sections; `home` marks the one that opens first."""

    path: Path
    title: str
    icon: str
    section: str
    order: int
    home: bool = False


def pages(folder: Path) -> Mapping[str, list[StreamlitPage]]:
    """The folder's pages by section, in their order. A page's address is its file's name; the home page's is the root."""
    listed = entries(folder)
    found: dict[str, list[StreamlitPage]] = {entry.section: [] for entry in listed}
    for entry in listed:
        address = "home" if entry.home else entry.path.stem
        found[entry.section].append(
            st.Page(entry.path, title=entry.title, icon=f":material/{entry.icon}:", url_path=address, default=entry.home),
        )
        if entry.home:
            found[entry.section].append(_forwarding(entry.path))
    return found


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


def _forwarding(home: Path) -> StreamlitPage:
    """Streamlit serves the home page at the root only: whoever asks for it by its file's name is sent there."""

    def forward() -> None:
        st.switch_page(home)

    return st.Page(forward, url_path=home.stem, visibility="hidden")
