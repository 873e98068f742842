"""Looking at data before a run is launched on it, in a process that loads the tokenizer in the caller's place, with limits on memory and time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import psutil
from pydantic import JsonValue

from workbench.data.check import CheckReport, Page
from workbench.data.formats import NAMES
from workbench.data.limits import Limits, ended_by
from workbench.data.readers import Changes, Kind
from workbench.jobs.sources import check_data_source, check_model_source
from workbench.processes.check_data import MORE_MEMORY, TOLD, Question
from workbench.rundir.permission import changes as for_writers
from workbench.settings import functions, plain
from workbench.settings.naming import nearest

TIMEOUT_S = 600.0
"""Longest check, in seconds."""
LOOK_S = 0.2
"""How often a check that can be stopped is looked at, in seconds."""


def memory_gb() -> float:
    """What a check may write to where nothing else is said: half of this machine's memory, in GiB."""
    return psutil.virtual_memory().total / 2**31


def as_template_kwargs(text: str) -> dict[str, JsonValue]:
    """`{enable_thinking: false}` as a mapping, empty for an empty text. Raises ValueError: it is none."""
    given = plain.load(text) if text.strip() else {}
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"data.template_kwargs: expected variables of the chat template, such as {{enable_thinking: false}}; got {text}")
    return given


@for_writers
def check_data(
    source: str,
    kind: Kind,
    format: str = "auto",
    model: str = "smollm2-135m-instruct",
    max_length: int = 1024,
    limits: Limits | None = None,
    timeout_s: float = TIMEOUT_S,
    max_memory_gb: float | None = None,
    stopped: Callable[[], bool] | None = None,
    changes: Changes | None = None,
    on_bad_row: str = "error",
    template_kwargs: Mapping[str, JsonValue] | None = None,
) -> CheckReport:
    """What there is to know of a source's rows as training would see them.

    Args:
        limits: on a row's length, on how far a compressed file may expand, and on its decoding's memory; None for those of `Data`.
        max_memory_gb: GiB that the check may write to; None for half of this machine's memory.
        stopped: asked several times a second; once it is true the check ends.
        changes: what is done to a row before it is read, as by `data.columns` and `data.map`; None for nothing.
        on_bad_row: as `data.on_bad_row`: whether the report says that malformed rows keep a run from starting.
        template_kwargs: as `data.template_kwargs`: variables of the model's chat template.

    Raises:
        ValueError: there is no such source, not one good row in it, or no such model; or it takes more time or memory, or was stopped.
    """
    question = _question(source, kind, format, model, limits, max_memory_gb, changes, template_kwargs)
    question = question.model_copy(update={"max_length": max_length, "on_bad_row": on_bad_row})
    return CheckReport.model_validate_json(_ask(question, timeout_s, stopped))


@for_writers
def browse_data(
    source: str,
    kind: Kind,
    offset: int,
    count: int,
    format: str = "auto",
    model: str = "smollm2-135m-instruct",
    limits: Limits | None = None,
    timeout_s: float = TIMEOUT_S,
    max_memory_gb: float | None = None,
    stopped: Callable[[], bool] | None = None,
    changes: Changes | None = None,
    template_kwargs: Mapping[str, JsonValue] | None = None,
) -> Page:
    """Some good rows of a source as training sees them. Raises ValueError as `check_data` does."""
    question = _question(source, kind, format, model, limits, max_memory_gb, changes, template_kwargs).model_copy(update={"rows": (offset, count)})
    return Page.model_validate_json(_ask(question, timeout_s, stopped))


def _question(
    source: str,
    kind: Kind,
    format: str,
    model: str,
    limits: Limits | None,
    max_memory_gb: float | None,
    changes: Changes | None,
    template_kwargs: Mapping[str, JsonValue] | None,
) -> Question:
    """What the process is asked. Raises ValueError where there is no such source, format, function or model, before seconds go into starting it."""
    if format not in ("auto", *NAMES):
        raise ValueError(f"there is no format {format!r}{nearest(format, NAMES)}; there are: auto, {', '.join(NAMES)}")
    if changes and changes.map:
        functions.check(changes.map, functions.MAP)
    check_data_source(source)
    check_model_source(model)
    memory_bytes = int((memory_gb() if max_memory_gb is None else max_memory_gb) * 2**30)
    given = {"source": source, "kind": kind, "format": format, "model": model, "memory_bytes": memory_bytes}
    return Question(**given, limits=limits or Limits(), changes=changes or Changes(), template_kwargs=dict(template_kwargs or {}))


def _ask(question: Question, timeout_s: float, stopped: Callable[[], bool] | None) -> str:
    command = [sys.executable, "-m", "workbench.processes.check_data"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        answer, message = _answer(process, question, timeout_s, stopped)
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"{question.source}: checking it takes more than {timeout_s:g} s; `workbench data check --timeout` gives it longer"
        ) from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # what it started goes with it
            process.communicate()
    if process.returncode == 0:
        return answer
    if process.returncode == TOLD:
        raise ValueError(message.strip())
    ended, last = ended_by(process.returncode, 0, question.memory_bytes), message.strip().rpartition("\n")[2]
    raise ValueError(f"{question.source}: the check failed: {ended} {last[:500]}".strip() + (f"; {MORE_MEMORY}" if process.returncode < 0 else ""))


def _answer(process: subprocess.Popen[str], question: Question, timeout_s: float, stopped: Callable[[], bool] | None) -> tuple[str, str]:
    """What the process writes to its output and its errors. Raises TimeoutExpired, and ValueError once `stopped` is true."""
    until = time.monotonic() + timeout_s
    given: str | None = question.model_dump_json()
    while True:
        try:
            left = until - time.monotonic()
            return process.communicate(given, timeout=left if stopped is None else min(left, LOOK_S))
        except subprocess.TimeoutExpired:
            given = None  # the first call has given the question
            if time.monotonic() >= until:
                raise
        if stopped is not None and stopped():
            raise ValueError(f"{question.source}: the check was stopped")
