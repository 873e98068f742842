"""Questions to served checkpoints, several at a time: the answers as they come, token by token, and what was measured of each."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from workbench.rundir.lines import Json
from workbench.serve.completions import Completions, Delta

MOST_QUESTIONS = 32
"""That one request may ask: a strip of ten levels beside several columns."""
Event = dict[str, Json]
"""Of the question `id`: `text`, a piece of the answer; `end` with `tokens`, `first_s` and `seconds`; `measured` and `measured_by`, or `unmeasured` and why; `error`."""


class Message(BaseModel):
    """A turn of the conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=400_000)


class Sampling(BaseModel):
    """How an answer is drawn; temperature 0 is greedy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: int = Field(default=256, ge=1, le=32_768)
    temperature: float = Field(default=0.0, ge=0, le=5)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**31)


class Question(BaseModel):
    """One answer that is asked for. `id` is the asker's name for it, `endpoint` the id of the run that serves `model`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    endpoint: str
    model: str
    messages: tuple[Message, ...] = Field(min_length=1, max_length=400)
    attributes: dict[str, float] = {}
    sampling: Sampling = Sampling()
    measure: bool = True

    def turns(self) -> list[dict[str, str]]:
        return [{"role": message.role, "content": message.content} for message in self.messages]


@dataclass
class _Pieces:
    """An answer as far as it is there."""

    began: float = field(default_factory=time.monotonic)
    texts: list[str] = field(default_factory=list)
    tokens: int = 0
    first_s: float | None = None
    end: str = ""

    def add(self, delta: Delta) -> None:
        self.tokens += len(delta.token_ids) or bool(delta.text)
        self.end = delta.finish_reason or self.end
        if delta.text:
            self.first_s = self.first_s if self.first_s is not None else time.monotonic() - self.began
            self.texts.append(delta.text)

    def counts(self) -> dict[str, Json]:
        return {"tokens": self.tokens, "first_s": self.first_s, "seconds": time.monotonic() - self.began}


class Answers:
    """The answers to some questions, all asked at once. `next` gives what came since; `close` cancels what is still being answered.

    A question that fails has an `error` event, and disturbs no other.

    Args:
        client: the client of an endpoint by its run's id. Raises ValueError, with the reason, where it does not serve.
    """

    def __init__(self, questions: Sequence[Question], client: Callable[[str], Completions]) -> None:
        if not 1 <= len(questions) <= MOST_QUESTIONS:
            raise ValueError(f"1 to {MOST_QUESTIONS} questions are asked at once, got {len(questions)}")
        if len({question.id for question in questions}) < len(questions):
            raise ValueError("two questions have the same id")
        self._client = client
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._stopped = {question.id: threading.Event() for question in questions}
        self._sockets: dict[str, socket.socket] = {}
        self._left = len(questions)
        for question in questions:
            threading.Thread(target=self._answer, args=(question,), name=f"answer {question.id}", daemon=True).start()

    def next(self, wait_s: float = 1.0) -> list[Event] | None:
        """What came since the last call, after a wait for the first of it: nothing in that time is the empty list, None the end."""
        if not self._left:
            return None
        events: list[Event] = []
        try:
            event = self._events.get(timeout=wait_s)
            while True:
                if event is None:
                    self._left -= 1
                else:
                    events.append(event)
                event = self._events.get_nowait()
        except Empty:
            return events if events or self._left else None

    def stop(self, ids: Iterable[str]) -> None:
        """Cancel these questions; others' ids are passed over. What was answered until then stays."""
        for name in ids:
            if name in self._stopped:
                self._stopped[name].set()
                self._hang_up(name)

    def close(self) -> None:
        """Cancel all."""
        self.stop(self._stopped)

    def _hang_up(self, name: str) -> None:
        """Wake the thread that waits for the endpoint."""
        if name in self._sockets:
            with contextlib.suppress(OSError):  # it has ended by itself
                self._sockets[name].shutdown(socket.SHUT_RDWR)

    def _answer(self, question: Question) -> None:
        """In the question's thread."""
        problem = "the question failed in this process; its log says why"
        try:
            text = self._streamed(question)
            if text is not None and question.measure:
                self._measure(question, text)
            problem = ""
        except (ValueError, OSError) as error:
            problem = str(error) or type(error).__name__
        finally:
            if problem:
                self._events.put({"id": question.id, "error": problem})
            self._events.put(None)

    def _streamed(self, question: Question) -> str | None:
        """The whole answer; None where it was stopped."""
        stopped, pieces = self._stopped[question.id], _Pieces()
        try:
            for delta in self._deltas(question):
                if stopped.is_set():
                    break
                pieces.add(delta)
                if delta.text:
                    self._events.put({"id": question.id, "text": delta.text})
        except ConnectionError:
            if not stopped.is_set():
                raise
        if stopped.is_set():
            self._events.put({"id": question.id, "end": "stopped", **pieces.counts()})
            return None
        if not pieces.end:
            raise ConnectionError("the endpoint ended in the middle of the answer")
        self._events.put({"id": question.id, "end": pieces.end, **pieces.counts()})
        return "".join(pieces.texts)

    def _deltas(self, question: Question) -> Iterator[Delta]:
        def connected(to: socket.socket) -> None:
            self._sockets[question.id] = to
            if self._stopped[question.id].is_set():
                self._hang_up(question.id)

        sampling = question.sampling.model_dump()
        answer = self._client(question.endpoint).stream(
            question.model, question.turns(), attributes=question.attributes or None, connected=connected, **sampling
        )
        try:
            with closing(cast(Generator[Delta], answer)) as deltas:
                yield from deltas
        finally:
            self._sockets.pop(question.id, None)

    def _measure(self, question: Question, text: str) -> None:
        try:
            measured = self._client(question.endpoint).measure([*question.turns(), {"role": "assistant", "content": text}])
        except (ValueError, OSError) as error:
            self._events.put({"id": question.id, "unmeasured": str(error)})
            return
        attributes: Mapping[str, float] = measured.attributes
        self._events.put({"id": question.id, "measured": dict(attributes), "measured_by": dict(measured.measured_by)})
