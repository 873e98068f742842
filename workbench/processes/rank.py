"""One rank of a run's gang: what every kind of job needs of it. Events, progress, requests, and what rank 0 makes for all."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from workbench.data import targets
from workbench.data.chat import Chat
from workbench.data.dataset import Dataset, load
from workbench.data.readers import Kind
from workbench.data.rows import Conversation
from workbench.data.targets import Targets
from workbench.engine import hf, parallel
from workbench.processes import startup
from workbench.processes.context import beyond_context
from workbench.processes.log import Log
from workbench.rundir import beats
from workbench.rundir.events import EventWriter
from workbench.rundir.store import RunDir
from workbench.settings import CheckpointJob, Data
from workbench.settings.spec import Experiment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
PROGRESS_S = 0.5


def _asked_as_beside(spec: Experiment, directory: Path) -> Experiment:
    """With the ratings as a model's directory says that it reads them: one that another stage of a pipeline made was not there at the launch."""
    job = spec.job
    if not isinstance(job, CheckpointJob) or job.checkpoint or "steering" not in job.takes_over or spec.data.steering:
        return spec
    if (known := Targets.beside(directory)) is None:
        return spec
    data = spec.data.model_copy(update={"steering": known.steering, "template_kwargs": spec.data.template_kwargs or dict(known.template_kwargs)})
    return spec.model_copy(update={"data": data})


class Rank:
    """A rank with the model's directory and tokenizer. Only rank 0 writes events."""

    def __init__(self, run: RunDir, spec: Experiment):
        self.run, self.spec = run, spec
        self.attempt = int(os.environ.get("WORKBENCH_ATTEMPT", "1"))
        self._events = EventWriter(run) if parallel.rank() == 0 else None
        self._log = Log()
        self.directory, revision = self.made_by_first(self._fetched, "fetching the model")
        self.spec = startup.at_revision(spec, revision)
        self.tokenizer: PreTrainedTokenizerBase = hf.tokenizer(self.directory)
        self.spec = _asked_as_beside(self.spec, self.directory)
        self.chat = Chat.of(self.tokenizer, self.spec.data)

    @functools.cached_property
    def end_tokens(self) -> frozenset[int]:
        """What ends an answer."""
        own = {self.chat.end_token} if self.spec.data and self.spec.data.steering else set()  # the layout may be another template than the model's
        return hf.end_tokens(self.directory) | own

    def read(self, data: Data, kind: Kind, max_tokens: int = 0) -> Dataset:
        """A run's data, reported, with a warning for each note of it, and where rows, or prompts with answers of `max_tokens`, pass the model's context.

        Raises DataError.
        """
        result = load(data, kind, self.chat, self.progress("reading the data"))
        self.emit("data", report=dataclasses.asdict(result.report))
        if data.steering and kind == "conditioned" and parallel.rank() == 0:
            ratings = [text.messages[-1].ratings for text in result.texts if isinstance(text, Conversation)]
            Targets.of(data.steering, ratings, data.template_kwargs).write(self.run.path / targets.FILE)
        for note in [*result.report.notes, beyond_context(self.directory, [*result.train, *result.validation], max_tokens)]:
            if note:
                self.warn(note)
        return result

    def _fetched(self) -> tuple[Path, str | None]:
        directory, spec = startup.fetched(self.run, self.spec)
        return directory, spec.model.revision

    def emit(self, kind: str, **values: object) -> None:
        """An event of the run: a line in this rank's log, and written by rank 0."""
        self._log.event(kind, values)
        if self._events:
            self._events.write(kind, **values)

    def warn(self, message: str) -> None:
        self.emit("warning", message=message)

    def progress(self, message: str) -> Callable[[int, int], None]:
        """A callback that reports a phase as (done, total), at most twice a second."""
        last = 0.0

        def report(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > PROGRESS_S or done == total:
                last = time.monotonic()
                self.emit("phase", message=message, done=done, total=total)

        return report

    def made_by_first(self, make: Callable[[], T], message: str) -> T:
        """Rank 0 makes it (a cached file, say); the others wait, then have what it gave."""
        self.emit("phase", message=message)
        with beats.doing(message):
            box: list[T] = [make()] if parallel.rank() == 0 else []
            return parallel.from_first(box)[0]
