"""The Run page of a run that answers prompts."""

from __future__ import annotations

import streamlit as st

from ui import frame, rollout_panels, row_files
from ui.run_panels import LOG, SETTINGS, Tab
from workbench import metrics as M
from workbench.api import Run
from workbench.rundir import answers, opening, rollouts
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import Status
from workbench.settings.stored import spec_tree
from workbench.views import History, feed, tables, text
from workbench.views.text import Figure


def headline(run: Run, history: History, status: Status) -> list[Figure]:
    """Prompts answered, what the answers are like, speed and time left."""
    done, total = _answered(run, history, status)
    figures = [Figure("Prompts answered", f"{done:,}", f"of {total:,} · {done / total:.0%}" if total else "")]
    if lengths := history.metrics.get(M.GENERATION_LENGTH):
        figures.append(Figure("Answer length", text.number(sum(lengths) / len(lengths), 3), "tokens on average"))
    if ended := history.metrics.get(M.PROPERLY_ENDED):
        figures.append(Figure("Ended", f"{sum(ended) / len(ended):.0%}", "others truncated"))
    return [*figures, *tables.pace(history, status, "Answered")]


def above_tabs(run: Run) -> None:
    """How far it is, while it answers."""
    status = run.status
    with feed.history(run.dir) as history:
        done, total = _answered(run, history, status)
        left = text.eta_s(history.steps, history.elapsed_s, history.total_steps)
    if total and done and not status.state.ended:
        remaining = f" · {text.duration(left)} left" if left is not None else ""
        st.progress(min(1.0, done / total), text=f"{done:,} of {total:,} prompts answered{remaining}")


def tabs(run: Run) -> list[Tab]:
    return [Tab("Answers", "forum", _answers, every_s=None), LOG, SETTINGS]


def _answered(run: Run, history: History, status: Status) -> tuple[int, int]:
    """Prompts answered, and prompts in all; 0 where that is not known yet."""
    steps = history.steps[-1] if history.steps else status.step
    total = history.data.get("train", 0)
    total = int(total) if isinstance(total, int | float) else 0
    return min(total, steps * int(spec_tree(run.dir).get("job", {}).get("prompts_per_step", 0))), total


def _answers(run: Run) -> None:
    """All answers, to search and to read; and the files that hold them."""
    ended = run.status.state.ended
    often = None if ended else 1.0
    if not rollouts.steps(run.dir):
        frame.refreshed(_none_yet, often)(run, ended)
        return
    frame.refreshed(_files, often)(run)
    rollout_panels.browse(run, ended)


def _none_yet(run: Run, ended: bool) -> None:
    if rollouts.steps(run.dir) or run.status.state.ended != ended:
        st.rerun()
    wait = "The run ended before its first answers were saved." if ended else "The first answers appear as soon as a step's prompts are answered."
    st.info(wait, icon=":material/forum:")


def _files(run: Run) -> None:
    """Where the answers lie, once they are all there; a file is read when it is asked for."""
    jsonl, parquet = run.dir.path / answers.JSONL, run.dir.path / answers.PARQUET
    try:
        size = opening.stat(jsonl).st_size
    except Unreadable as error:
        st.error(f"Cannot be read: {frame.plain(str(error))}", icon=":material/error:")
        return
    except FileNotFoundError:
        st.caption(f"`{answers.JSONL}` and `{answers.PARQUET}` are written when every prompt is answered.")
        return
    row_files.download(run, jsonl, size, [parquet])
