"""How well a model does what its sliders ask, as a job measured it: requested against achieved, and leakage into other attributes."""

from __future__ import annotations

import streamlit as st

from ui import frame
from workbench import api
from workbench.api import Run
from workbench.rundir import adherence, opening
from workbench.rundir.adherence import Adherence, Attribute
from workbench.rundir.opening import Unreadable
from workbench.settings.stored import spec_tree
from workbench.views import steering as views
from workbench.views import text

CONFIG = {"displayModeBar": False}
HOW = """workbench run job=generate job.checkpoint=RUN data.train=prompts.jsonl 'job.sweep=[verbosity]'
workbench run job=annotate 'job.rules=[verbosity]' data.train=runs/GENERATED/answers.jsonl
workbench run job=adhere data.train=runs/ANNOTATED/annotated.jsonl"""


def draw() -> None:
    """The runs that measured adherence, and the figures of one."""
    measured = {run.id: run for run in api.runs() if _has(run)}
    if not measured:
        st.info("No run has measured adherence yet. Answers to a grid of requests are generated, measured, and compared:", icon=":material/target:")
        st.code(HOW, language="bash")
        return
    picked = st.selectbox(
        "Measured by",
        list(measured),
        format_func=lambda run_id: text.visible(f"{spec_tree(measured[run_id].dir).get('name', run_id)} · {run_id}"),
        key="steer-adherence",
        width=480,
    )
    of_run(measured[picked])


def of_run(run: Run) -> None:
    """The figures of one run's `adherence.json`."""
    try:
        measured = adherence.read(run.dir.path / adherence.FILE)
    except FileNotFoundError:
        st.info("The figures appear when the answers are compared.", icon=":material/target:")
        return
    except Unreadable as error:
        st.error(f"Cannot be read: {frame.plain(str(error))}", icon=":material/error:")
        return
    by = ", ".join(f"{name} by {who}" for name, who in measured.measured_by.items())
    st.caption(frame.plain(f"{measured.rows:,} answers to {measured.prompts:,} prompts{f' · measured: {by}' if by else ''}"))
    for warning in measured.warnings:
        st.warning(frame.sentence(warning), icon=":material/warning:")
    st.dataframe([_row(each) for each in measured.attributes], hide_index=True, alt="Adherence by attribute, with 95 % intervals")
    _figures(run, measured)


def _figures(run: Run, measured: Adherence) -> None:
    left, right = st.columns(2)
    with left.container(border=True):
        st.markdown("**Requested and achieved**", help="The mean measured rating with its 95 % interval; on the dashed line a request is met.")
        figure = views.achieved(measured.attributes, frame.theme())
        st.plotly_chart(figure, theme=None, config=CONFIG, key=f"achieved-{run.id}", alt="Mean measured rating by requested rating")
    with right.container(border=True):
        st.markdown("**Length**", help="Words of an answer, mean with its 95 % interval.")
        figure = views.lengths(measured.attributes, frame.theme())
        st.plotly_chart(figure, theme=None, config=CONFIG, key=f"words-{run.id}", alt="Words in an answer by requested rating")
    with st.container(border=True):
        st.markdown(
            "**Leakage**",
            help="What each request moves, by partial correlation: off the diagonal it moves what was not asked for. Beside it the training data's own.",
        )
        figure = views.leakage(measured, frame.theme())
        st.plotly_chart(figure, theme=None, config=CONFIG, key=f"leakage-{run.id}", alt="Leakage between attributes")


def _row(of: Attribute) -> dict[str, object]:
    named = {"Spearman": of.spearman, "Target error": of.error, "Bias": of.bias, "Spearman with words": of.words}
    return {"Attribute": of.name, "Answers": of.rows, **{name: str(estimate) for name, estimate in named.items()}}


def _has(run: Run) -> bool:
    try:
        return opening.is_file(run.dir.path / adherence.FILE)
    except Unreadable:
        return False
