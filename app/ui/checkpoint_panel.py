"""The checkpoints of a run, and what can be done with one: jobs on it, asking it, its export."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from ui import access, choose
from workbench.api import Run
from workbench.rundir import opening
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import COMPLETE
from workbench.settings import modules
from workbench.views import text


def draw(run: Run) -> None:
    """The complete checkpoints, and what can be done with one."""
    rows = []
    for name in sorted(_names(run.dir.checkpoints), key=lambda name: (len(name), name), reverse=True):
        path = run.dir.checkpoints / name
        with contextlib.suppress(FileNotFoundError, Unreadable):  # not complete yet, its time is over, or it is named at the top of the page
            saved = opening.stat(path / COMPLETE).st_mtime
            rows.append({"Step": path.name, "Saved": text.ago(saved), "Size": text.size(_size(path, saved)), "Folder": str(path)})
    if not rows:
        st.info("No complete checkpoint yet. How often one is saved: `checkpoint.every_steps`.", icon=":material/save:")
        return
    st.dataframe(rows, hide_index=True, alt="Complete checkpoints", column_config={"Folder": st.column_config.TextColumn(width="large")})
    if access.may_change():
        _use_checkpoint(run, [row["Step"] for row in rows])


def _use_checkpoint(run: Run, steps: Sequence[str]) -> None:
    """Jobs on a checkpoint, and its export."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        step = st.selectbox("Checkpoint of step", steps, key=f"checkpoint-{run.id}", width=170)
        for kind, label, icon in (("generate", "Generate with it", "forum"), ("evaluate", "Evaluate it", "fact_check")):
            if st.button(label, icon=f":material/{icon}:", key=f"{kind}-{run.id}", help=f"Open Launch with a run that does it: `job={kind}`."):
                choose.launch_with(kind, f"{run.id}:{step}")
        for page, icon in () if _scores(run) else (("chat", "chat"), ("steer", "tune")):
            if st.button(page.capitalize(), icon=f":material/{icon}:", key=f"{page}-{run.id}", help="Serve the checkpoint and ask it."):
                st.switch_page(f"pages/{page}.py", query_params={"checkpoint": f"{run.id}:{step}"})
    st.markdown("**Export as a Hugging Face directory**")
    which = "" if step == steps[0] else f" --step {step}"
    st.code(f"workbench export {run.id}{which} --out exports/{run.id}", language="bash")


def _scores(run: Run) -> bool:
    """Whether its model scores answers and gives none."""
    return bool(modules.outputs_of(run.spec.algorithm).scores)


@functools.lru_cache(maxsize=1024)
def _size(folder: Path, _saved: float) -> int:
    """Bytes. What is complete stays as it is: hundreds of files on a network file system are not asked twice a second. Raises FileNotFoundError."""
    return opening.total_bytes(folder)


def _names(folder: Path) -> list[str]:
    """The steps in the folder; none where it is not read."""
    try:
        return [name for name in opening.names(folder) if name.isascii() and name.isdigit()]
    except Unreadable:
        return []
