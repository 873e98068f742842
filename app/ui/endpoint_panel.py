"""The bar above the Steer and Chat pages: which endpoints there are, how one is started on a checkpoint, and how it is stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from ui import choose, frame
from workbench import api
from workbench.api import Run, Served, Serving
from workbench.rundir import opening
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import COMPLETE
from workbench.settings.stored import spec_tree
from workbench.views import text

WAITING_S, SERVING_S = 1.0, 3.0
MOST_RUNS = 60
"""Whose checkpoints are listed; an older one is typed."""


def draw(page: str) -> tuple[list[Served], str | None]:
    """The bar. Returns what is served, and the key of the checkpoint that the page's address asks for, where that one is served."""
    now = api.serving()
    wanted = st.query_params.get("checkpoint", "")
    waiting = [each for each in now if each.waiting]
    frame.refreshed(_bar, WAITING_S if waiting else SERVING_S)(page, _mark(now), wanted)
    served = [each for serving in now for each in serving.served]
    return served, _key_of(wanted, now)


def _mark(serving: Sequence[Serving]) -> list[tuple[str, bool]]:
    """Another one when the panel below has other checkpoints to choose from."""
    return [(each.run.id, bool(each.served)) for each in serving]


def _bar(page: str, mark: Sequence[tuple[str, bool]], wanted: str) -> None:
    now = api.serving()
    if _mark(now) != mark:
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{page}-endpoints"):
        if not now:
            st.markdown(":gray[No endpoint is running.]", width="content")
        for each in now:
            _endpoint(page, each)
        with st.popover("Serve a checkpoint", icon=":material/add:", type="secondary" if now else "primary"):
            _start(page)
    if wanted and _key_of(wanted, now) is None:
        _offer(page, wanted, now)
    for each in now:
        if each.waiting:
            _progress(each)


def _endpoint(page: str, of: Serving) -> None:
    """A popover an endpoint: what it serves, the way to its run, and the button that stops it."""
    name = ", ".join(each.model.id for each in of.served) or spec_tree(of.run.dir).get("name", of.run.id)
    icon = "cell_tower" if of.served else "hourglass_top"
    with st.popover(text.visible(str(name))[:60], icon=f":material/{icon}:"):
        frame.state_badge(of.run.status)
        for each in of.served:
            step = "" if each.model.step is None else f" · step {each.model.step}"
            attributes = f" · {len(each.model.targets.steering.attributes)} attributes" if each.model.targets else ""
            st.markdown(f"**{frame.plain(each.model.id)}**{step}{attributes}  \n{frame.code(each.model.source)}")
        st.page_link("pages/run.py", label="The endpoint's run", icon=":material/monitoring:", query_params={"id": of.run.id})
        help_ = "Ends the endpoint and frees its memory. Its checkpoints stay."
        if st.button("Stop the endpoint", icon=":material/stop_circle:", key=f"{page}-stop-{of.run.id}", help=help_):
            _act(of.run)


def _act(run: Run) -> None:
    try:
        run.stop()
    except (ValueError, OSError) as error:
        st.error(frame.plain(str(error)), icon=":material/error:")
    else:
        st.rerun()


def _progress(of: Serving) -> None:
    status = of.run.status
    st.info(f"**{frame.plain(of.run.id)}** · {frame.sentence(of.waiting)}", icon=":material/hourglass_top:")
    if status.state.ended:
        st.rerun()


def _offer(page: str, wanted: str, now: Sequence[Serving]) -> None:
    """The checkpoint that another page led to is not served yet: one button serves it."""
    if any(each.waiting and _serves(each.run, wanted) for each in now):
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center", key=f"{page}-offer"):
        st.markdown(f"{frame.code(wanted)} is not served yet.", width="stretch")
        if st.button("Serve it", type="primary", icon=":material/cell_tower:", key=f"{page}-serve-wanted"):
            _serve([wanted], [])


def _start(page: str) -> None:
    """The form that starts an endpoint."""
    known = _checkpoints()
    picked = st.multiselect(
        "Checkpoints",
        list(known),
        format_func=lambda name: known.get(name, name),
        accept_new_options=True,
        key=f"{page}-checkpoints",
        placeholder="Choose, or type a folder or a model",
        help="Several are served side by side. A run's checkpoint, a Hugging Face directory, a model of the hub: the base beside the tuned one.",
    )
    rules = st.multiselect(
        "Rules that measure answers",
        list(api.RULES),
        accept_new_options=True,
        key=f"{page}-rules",
        placeholder="None",
        help="Functions of prompt and answer: the names of rules, or path/to/file.py:function. `job.rules`",
    )
    measure = st.text_input(
        "Attribute model that measures answers",
        key=f"{page}-measure",
        placeholder="none",
        help="A run or a checkpoint of a reward model with attributes; another one than annotated the training data. `job.measure`",
    )
    if st.button("Start", type="primary", icon=":material/cell_tower:", key=f"{page}-start", disabled=not picked):
        settings = [f"job.rules=[{','.join(rules)}]"] if rules else []
        settings += [f"job.measure={measure.strip()}"] if measure.strip() else []
        _serve(picked, settings)


def _serve(checkpoints: Sequence[str], overrides: Sequence[str]) -> None:
    try:
        api.serve(checkpoints, overrides)
    except (ValueError, OSError) as error:
        st.error(f"The endpoint cannot be started: {frame.plain(str(error))}", icon=":material/error:")
    else:
        st.rerun()


def _checkpoints() -> Mapping[str, str]:
    """`id:step` of the newest complete checkpoint of each of the newest runs, with a text for people."""
    listed: dict[str, str] = {}
    for run in api.runs()[:MOST_RUNS]:
        if choose.unreadable(run):
            continue
        try:
            steps = sorted(int(name) for name in opening.names(run.dir.checkpoints) if name.isascii() and name.isdigit())
            whole = [step for step in steps if opening.is_file(run.dir.checkpoints / str(step) / COMPLETE)]
        except (FileNotFoundError, Unreadable):
            continue
        if whole:
            listed[f"{run.id}:{whole[-1]}"] = text.visible(f"{spec_tree(run.dir).get('name', run.id)} · step {whole[-1]} · {run.id[-6:]}")
    return listed


def _key_of(wanted: str, now: Sequence[Serving]) -> str | None:
    """What serves a checkpoint that is named as `id:step` or `id`."""
    run_id, _, step = wanted.partition(":")
    for serving in now:
        for each in serving.served:
            if run_id and run_id in each.model.source and step in ("", str(each.model.step)):
                return each.key
    return None


def _serves(run: Run, wanted: str) -> bool:
    run_id = wanted.partition(":")[0]
    return any(run_id in str(each) for each in spec_tree(run.dir).get("job", {}).get("checkpoints", ()))
