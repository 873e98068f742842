"""Files of rows that a run has written: read when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from ui import frame
from workbench.api import Run
from workbench.rundir import opening
from workbench.views import text


def download(run: Run, path: Path, size: int, beside: Sequence[Path] = ()) -> None:
    """A button for the file, of `size` bytes, and where it and those beside it lie."""
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="answer-files"):
        st.download_button(
            f"{path.name} · {text.size(size)}",
            lambda: opening.read_bytes(path, limit=size),
            file_name=f"{run.id}.jsonl",
            mime="application/jsonl",
            icon=":material/download:",
            on_click="ignore",
            key=f"download-{run.id}",
        )
        st.caption("  \n".join(frame.code(each) for each in (path, *beside)), width="content")
