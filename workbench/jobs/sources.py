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
from typing import cast

from pydantic import BaseModel

from workbench.algorithms import kind_of_rows
from workbench.data import hub
from workbench.data.limits import Limits
from workbench.data.readers import Changes, Kind, data_file, read
from workbench.engine import preconditions, weight_files
from workbench.settings import CheckpointJob, Data
from workbench.settings.composing import SHOWN, SpecError
from workbench.settings.modules import NO_ALGORITHM
from workbench.settings.online import Reward, find_reward_kind
from workbench.settings.sources import EMBEDDED, NO_REVISION, DataError, locate
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
    """Raises ValueError where a model is neither a directory, a .gguf file nor a model of the hub, or is one that the engine does not read.

    Takes no longer than the hub's answer.
    """
    if wrong := _model(source).result():
        raise ValueError(wrong)


def _data(experiment: Experiment) -> Iterator[tuple[str, Future[str]]]:
    data, here = experiment.data, experiment.backend.name == "local"
    kind = cast(Kind, experiment.job.reads)
    if "algorithm" in experiment.job.sections and experiment.algorithm.name != NO_ALGORITHM:
        try:
            kind = kind_of_rows(experiment.algorithm, data)
        except ValueError as error:
            yield "data.steering", _once((str(error),), lambda message=str(error): message)
            return
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
    limits = Limits.of(data)
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
    named = [] if of_checkpoint else [_Asked("model.source", experiment.model.source, experiment.model.revision)]
    for asked in (*named, *_sources_in("algorithm", experiment.algorithm), *_sources_in("job", experiment.job)):
        if here or _is_directory(asked.source):
            yield asked.key, _model(asked.source, asked.revision, asked.scores)


@dataclass(frozen=True)
class _Asked:
    """A model that settings name: under which key, and how many scores it has to give."""

    key: str
    source: str
    revision: str | None = None
    scores: int = 0


def _sources_in(path: str, settings: BaseModel) -> Iterator[_Asked]:
    """Each model that settings name, at any depth: the rewards' and the judges', the critic's, the teacher's."""
    for name, value in settings:
        key = f"{path}.{name}"
        if isinstance(value, dict):
            rewards = ((f"{key}.{of}", reward) for of, reward in value.items() if isinstance(reward, Reward))
            for of, reward in rewards:
                for need in find_reward_kind(reward.kind).needs(reward.settings):
                    if need.source is not None:
                        yield _Asked(f"{of}.{reward.kind}", need.source, scores=int(need.role == "reward"))
        elif isinstance(value, BaseModel):
            source = getattr(value, "source", None)
            if isinstance(source, str):
                yield _Asked(f"{key}.source", source, getattr(value, "revision", None))
            yield from _sources_in(key, value)


def _model(source: str, revision: str | None = None, scores: int = 0) -> Future[str]:
    question = ("model", source, revision, scores, *_files_version(source))
    return _once(question, lambda: _model_problem(source, revision, scores), math.inf if _is_directory(source) else HUB_ANSWER_S)


def _files_version(source: str) -> tuple[Hashable, ...]:
    """What changes with a directory's files; nothing of any other source."""
    if not _is_directory(source):
        return ()
    return tuple(_version(path) for path in sorted(Path(source).expanduser().iterdir()) if path.is_file())


def _model_problem(source: str, revision: str | None, scores: int) -> str:
    shown = source[:SHOWN]
    try:
        path = Path(source).expanduser()
        if source == EMBEDDED or path.exists():
            if revision:
                return f"{NO_REVISION}, and {shown} is none; leave model.revision out"
            return _path_problem(path, shown, scores)
    except (OSError, RuntimeError) as error:
        return f"{shown}: {error.args[-1]}; expected {MODEL}"
    if path.suffix == ".gguf" or source.startswith((".", "/", "~")):
        return f"there is no {shown}; expected {MODEL}"
    if folder := hub.cached(source, revision):
        return _directory_problem(folder, scores)
    wrong, config = hub.look(source, "model", revision)
    if wrong or "model_type" not in config:
        return wrong and f"{shown}: {wrong}"
    return _message_of(lambda: preconditions.check_kind(config, shown))


def _path_problem(path: Path, shown: str, scores: int) -> str:
    if shown != EMBEDDED and path.is_dir():
        return _directory_problem(path, scores) if (path / "config.json").is_file() else f"{shown} has no config.json; expected {MODEL}"
    if shown != EMBEDDED and path.suffix != ".gguf":
        return f"{shown} is a file; expected {MODEL}"
    return f"{shown} is no reward model: a language model has no trained score head" if scores else ""


def _directory_problem(folder: Path, scores: int) -> str:
    def check() -> None:
        preconditions.check(folder)
        if scores and weight_files.files(folder):
            preconditions.check_score_head(folder, scores)

    return _message_of(check)


def _message_of(check: Callable[[], None]) -> str:
    try:
        check()
    except (ValueError, OSError) as error:
        return str(error)
    return ""


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
