"""Choosing what the Launch form starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from ui import frame
from workbench import api
from workbench.api import Run
from workbench.settings import command_line, composing
from workbench.settings import start as starts
from workbench.settings.command_line import DEFAULT_JOB
from workbench.settings.start import FIRST_EXPERIMENT, NO_EXPERIMENT, Start
from workbench.settings.stored import spec_tree
from workbench.views import text


def start(source: Run | None) -> Start:
    """What the form begins with: the cloned run's settings, those of a job on a checkpoint, or those of the job and the experiment chosen here."""
    if source is not None:
        st.info(f"The form holds the settings of **{frame.plain(source.id)}**.", icon=":material/content_copy:")
        return starts.of_tree(source.id, spec_tree(source.dir))
    if checkpoint := st.query_params.get("checkpoint"):
        try:
            return _of_checkpoint(st.query_params.get("job", DEFAULT_JOB), checkpoint)
        except ValueError as error:
            st.warning(frame.sentence(str(error)), icon=":material/search_off:")
    left, right = st.columns([2, 3], gap="medium")
    with left:
        job = _chosen_job()
    experiment = NO_EXPERIMENT
    if experiments := command_line.experiments(job):
        with right:
            experiment = _chosen_experiment(experiments)
    return starts.of_experiment(job, experiment)


def _chosen_job() -> str:
    explained = starts.explained_jobs()
    kinds, wanted = list(explained), st.query_params.get("job", DEFAULT_JOB)
    listed = "\n".join(f"- {text.title(kind)}: {line}" for kind, line in explained.items())
    return st.selectbox(
        "Job",
        kinds,
        index=kinds.index(wanted) if wanted in kinds else kinds.index(DEFAULT_JOB),
        format_func=text.title,
        help=f"What the run does: a file in `conf/job/`.\n\n{listed}",
        key="launch-job",
        persist_state="session",
    )


def _chosen_experiment(experiments: Sequence[str]) -> str:
    listed = [NO_EXPERIMENT, *experiments]
    wanted = st.query_params.get("experiment", FIRST_EXPERIMENT)
    return st.selectbox(
        "Start from an experiment",
        listed,
        index=listed.index(wanted) if wanted in listed else 0,
        help="An experiment sets several choices at once: a file in `conf/experiment/`.",
        width=360,
        key="launch-experiment",
        persist_state="session",
    )


def _of_checkpoint(job: str, checkpoint: str) -> Start:
    """A job on a run's checkpoint. Raises ValueError for a run that is not there, and a kind of job that takes no checkpoint."""
    if job not in starts.checkpoint_jobs():
        raise ValueError(f"job={job} takes no checkpoint; these do: {', '.join(starts.checkpoint_jobs())}")
    tree = api.on_checkpoint(job, checkpoint).model_dump(mode="json")
    st.info(f"**{text.title(job)}** with the checkpoint **{frame.plain(checkpoint)}**.", icon=":material/save:")
    return starts.of_tree(f"{job}-{checkpoint}", tree)


def choose(begin: Start) -> tuple[list[str], dict[str, Any]]:
    """A select for each group. Returns the words and the tree with the choices in it."""
    picked: dict[str, str | None] = {}
    for (group, now), column in zip(begin.chosen.items(), st.columns(len(begin.chosen), gap="medium"), strict=True):
        options = composing.choices(group)
        picked[group] = column.selectbox(
            text.title(group),
            options,
            index=options.index(now) if now in options else None,
            placeholder=f"as in {begin.where}" if begin.tree.get(group) else "none",
            key=f"launch-{begin.name}-{group}",
            help=f"A file in `conf/{group}/`.",
            persist_state="session",
        )
    return starts.with_choices(begin, picked)


def rerun_when_checked(experiment: api.Experiment, pending: Sequence[str]) -> None:
    """Draw the page again when something is known of a source that was still looked at."""
    if api.check_sources(experiment, wait_s=0).pending != pending:
        st.rerun()


def widget_key(begin: Start, overrides: Sequence[str], name: str) -> str:
    """A field keeps what was typed until the choice that it belongs to changes."""
    return f"launch-{begin.name}-{starts.chosen_word(overrides, name)}-{name}"
