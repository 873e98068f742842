"""Whether the data and the models that settings name can be read, before anything is launched: names, endings, a file's first rows, the hub's answer.

Each source is looked at once, in a thread of its own, until its file changes: whoever asks waits only as long as they say.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from workbench.algorithms import kind_of_rows
from workbench.data import hub
from workbench.data.limits import Limits
from workbench.data.readers import Changes, Kind, data_file, read
from workbench.settings import CheckpointJob, Data
from workbench.settings.composing import SHOWN, SpecError
from workbench.settings.modules import NO_ALGORITHM
from workbench.settings.online import Reward, find_reward_kind
from workbench.settings.sources import EMBEDDED, DataError, locate
from workbench.settings.spec import Experiment

FIRST_ROWS = 16
FIRST_ROWS_TO_SKIP = 1024
"""Rows that are looked at for a good one where malformed ones are left out."""
WAIT_S = 20.0
HUB_ANSWER_S = 60.0
"""How long an answer of the hub is believed, in seconds."""
KEPT = 512
MODEL = "a Hugging Face directory, a hub id or a .gguf file"


@dataclass(frozen=True)
class SourceCheck:
    """`problems` are (key, what is wrong); `pending` the keys whose source took longer than the wait: nothing is known of them yet."""

    problems: list[tuple[str, str]]
    pending: list[str]


def check_sources(experiment: Experiment, wait_s: float = WAIT_S) -> SourceCheck:
    """All that `Experiment.check_files` finds, and what is wrong with the contents of the sources; waits at most so many seconds.

    The hub is asked for a run on this machine only: other nodes may reach another one.
    """
    try:
        experiment.check_files()
        problems: list[tuple[str, str]] = []
    except SpecError as error:
        problems = list(error.problems)
    named = {key for key, _ in problems}
    asked = {key: answer for key, answer in (*_data(experiment), *_models(experiment)) if key not in named}
    wait(asked.values(), timeout=wait_s)
    problems += [(key, answer.result()) for key, answer in asked.items() if answer.done() and answer.result()]
    return SourceCheck(problems, [key for key, answer in asked.items() if not answer.done()])


def check_data_source(source: str) -> None:
    """Raises DataError where a source of rows is neither a data file nor a data set of the hub. Takes no longer than the hub's answer."""
    if data_file(source) is None and (wrong := _once(("hub", source), lambda: _data_set(source), HUB_ANSWER_S).result()):
        raise DataError(wrong)


def check_model_source(source: str) -> None:
    """Raises ValueError where a model is neither a directory, a .gguf file nor a model of the hub. Takes no longer than the hub's answer."""
    if wrong := _model(source).result():
        raise ValueError(wrong)


def _data(experiment: Experiment) -> Iterator[tuple[str, Future[str]]]:
    data, here = experiment.data, experiment.backend.name == "local"
    kind: Kind = "prompt"
    if "algorithm" in experiment.job.sections and experiment.algorithm.name != NO_ALGORITHM:
        kind = kind_of_rows(experiment.algorithm)
    for key, source in (("data.train", data.train), ("data.validation", data.validation)):
        try:
            path = locate(source) if source else None
            version = _version(path) if path else ()
        except (DataError, OSError):  # here `check_files` says so, for other nodes the preflight
            continue
        if source and path:
            yield key, _once((*version, kind, data.model_dump_json()), lambda source=source: _first_rows(source, kind, data))
        elif source and here:
            yield key, _once(("hub", source), lambda source=source: _data_set(source), HUB_ANSWER_S)


def _first_rows(source: str, kind: Kind, data: Data) -> str:
    limits = Limits(data.max_row_mb << 20, data.max_expansion, int(data.reader_memory_gb * 2**30))
    if data.map:  # nothing of the user's is run here
        return ""
    count = FIRST_ROWS if data.on_bad_row == "error" else FIRST_ROWS_TO_SKIP
    try:
        read(source, kind, data.format, data.on_bad_row, min(count, data.limit or count), limits, Changes.of(data))
    except (DataError, OSError) as error:
        return str(error)
    return ""


def _data_set(source: str) -> str:
    wrong = hub.problem(source.partition(":")[0], "dataset")
    return wrong and f"{source[:SHOWN]}: {wrong}"


def _models(experiment: Experiment) -> Iterator[tuple[str, Future[str]]]:
    here, of_checkpoint = experiment.backend.name == "local", isinstance(experiment.job, CheckpointJob) and experiment.job.checkpoint is not None
    named = [] if of_checkpoint else [("model.source", experiment.model.source)]
    for key, source in (*named, *_sources_in("algorithm", experiment.algorithm)):
        if here or _is_directory(source):
            yield key, _model(source)


def _sources_in(path: str, settings: BaseModel) -> Iterator[tuple[str, str]]:
    """(key, source) of each model that settings name, at any depth: the rewards' and the judges', the critic's, the teacher's."""
    for name, value in settings:
        key = f"{path}.{name}"
        if isinstance(value, dict):
            rewards = ((f"{key}.{of}", reward) for of, reward in value.items() if isinstance(reward, Reward))
            for of, reward in rewards:
                for need in find_reward_kind(reward.kind).needs(reward.settings):
                    if need.source is not None:
                        yield f"{of}.{reward.kind}", need.source
        elif isinstance(value, BaseModel):
            source = getattr(value, "source", None)
            if isinstance(source, str):
                yield f"{key}.source", source
            yield from _sources_in(key, value)


def _model(source: str) -> Future[str]:
    return _once(("model", source), lambda: _model_problem(source), HUB_ANSWER_S if not _is_directory(source) else 1.0)


def _model_problem(source: str) -> str:
    if source == EMBEDDED:
        return ""
    shown = source[:SHOWN]
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return "" if (path / "config.json").is_file() else f"{shown} has no config.json; expected {MODEL}"
        if path.is_file():
            return "" if path.suffix == ".gguf" else f"{shown} is a file; expected {MODEL}"
    except (OSError, RuntimeError) as error:
        return f"{shown}: {error.args[-1]}; expected {MODEL}"
    if path.suffix == ".gguf" or source.startswith((".", "/", "~")):
        return f"there is no {shown}; expected {MODEL}"
    wrong = hub.problem(source, "model")
    return wrong and f"{shown}: {wrong}"


def _is_directory(source: str) -> bool:
    try:
        return Path(source).expanduser().is_dir()
    except (OSError, RuntimeError):  # no path at all: too long, or below the home of a user who is not there
        return False


def _version(path: Path) -> tuple[Hashable, ...]:
    stat = path.stat()
    return str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns


_POOL = ThreadPoolExecutor(4, "sources")
_lock = threading.Lock()
_answers: dict[tuple[Hashable, ...], tuple[float, Future[str]]] = {}
"""When each question was asked, and its answer: what is wrong, or nothing."""


def _once(question: tuple[Hashable, ...], look: Callable[[], str], kept_s: float = math.inf) -> Future[str]:
    """The answer to a question, from a thread that looks; the one that there is already where it is not older than `kept_s` seconds."""
    now = time.monotonic()
    with _lock:
        asked, answer = _answers.get(question, (now, None))
        if answer and (now - asked < kept_s or not answer.done()):
            return answer
        while len(_answers) >= KEPT:
            del _answers[next(iter(_answers))]
        _answers[question] = now, _POOL.submit(look)
        return _answers[question][1]
