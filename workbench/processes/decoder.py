"""The decoder of an endpoint: the requests that PyTriton's threads bring, and the models that answer them."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from workbench.processes.served_models import Served
from workbench.rollout.base import Sampling
from workbench.rollout.live import Ask, Drawn, Echo, Live

ENDING = "the endpoint is ending"
Part = Mapping[str, Any]
Tell = Callable[[Part | None], None]
"""Gives a part of an answer to who asked; None ends it."""


@dataclass(frozen=True)
class Wanted:
    """A request for answers, as the HTTP side sends it."""

    name: str
    model: str
    tokens: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    stops: list[str]
    seed: int
    samples: int
    top: int | None
    echo: bool


@dataclass(frozen=True)
class Orders:
    """What every rank does next: take up requests, by model, give some up, measure answers, look for the owner's requests, end."""

    asks: Sequence[tuple[str, Ask]] = ()
    cancelled: Sequence[str] = ()
    measured: Sequence[tuple[Sequence[Mapping[str, str]], str]] = ()
    look: bool = False
    end: bool = False


@dataclass
class Inbox:
    """From PyTriton's threads to the decoder's, which runs the collectives."""

    waiting: queue.SimpleQueue[tuple[Mapping[str, Any], Tell]] = field(default_factory=queue.SimpleQueue)
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def parts(self, request: Mapping[str, Any]) -> AsyncIterator[Part]:
        """What PyTriton's loop does with a request."""
        loop, came = asyncio.get_running_loop(), asyncio.Queue[Part | None]()

        def tell(part: Part | None) -> None:
            loop.call_soon_threadsafe(came.put_nowait, part)

        with self._lock:
            if self._closed:
                refuse(tell, ENDING)
            else:
                self.waiting.put((request, tell))
        while (part := await came.get()) is not None:
            yield part

    def close(self) -> None:
        """What has come and what comes is refused: nobody waits for an answer that does not come."""
        with self._lock:
            self._closed = True
            while not self.waiting.empty():
                refuse(self.waiting.get()[1], ENDING)


def refuse(tell: Tell, message: str) -> None:
    tell({"kind": "refused", "message": message})
    tell(None)


class Decoder:
    """The models of one rank, and the requests under way. Every rank makes the same calls, in the same order; rank 0 tells what was drawn."""

    def __init__(self, models: Sequence[Served], slots: int, longest: int):
        self._models = {model.id: model for model in models}
        self._ends = {model.id: model.end_tokens for model in models}
        self._live = {model.id: Live(model.reader.model, model.tokenizer, slots) for model in models}
        self._slots, self._longest = slots, longest
        self._used = dict.fromkeys(self._live, 0.0)
        self._asking: dict[str, tuple[Tell, int]] = {}
        """By name: whom to tell, and how many of the answers have not ended."""

    @property
    def busy(self) -> bool:
        return any(live.busy for live in self._live.values())

    def accepted(self, request: Mapping[str, Any], tell: Tell) -> tuple[str, Ask] | None:
        """On rank 0: the ask that a request is; None where it was refused, and told so."""
        try:
            wanted = _WANTED.validate_python({key: value for key, value in request.items() if key != "op"})
            ask = self._ask(wanted)
        except ValueError as error:
            refuse(tell, _brief(error))
            return None
        self._asking[wanted.name] = (tell, wanted.samples)
        return wanted.model, ask

    def _ask(self, wanted: Wanted) -> Ask:
        """Raises ValueError for what the model cannot answer."""
        if wanted.model not in self._models:
            raise ValueError(f"there is no model {wanted.model!r}")
        if wanted.name in self._asking:
            raise ValueError(f"a request {wanted.name!r} is under way")
        vocabulary = self._models[wanted.model].reader.hf_config.vocab_size
        if not wanted.tokens or not all(0 <= token < vocabulary for token in wanted.tokens):
            raise ValueError(f"tokens lie between 0 and {vocabulary - 1}, and there is one at least")
        if not 1 <= wanted.samples <= self._slots or wanted.max_tokens < 1 or len(wanted.tokens) + wanted.max_tokens > self._longest:
            raise ValueError(f"from 1 to {self._slots} samples, and at most {self._longest} tokens, prompt and answer together")
        sampling = Sampling(wanted.max_tokens, wanted.temperature, self._ends[wanted.model], wanted.top_k, wanted.top_p, tuple(wanted.stops))
        return Ask(wanted.tokens, samples=wanted.samples, name=wanted.name, sampling=sampling, seed=wanted.seed, top=wanted.top, echo=wanted.echo)

    def follow(self, orders: Orders) -> None:
        for model, ask in orders.asks:
            self._live[model].add(ask)
        for name in orders.cancelled:
            for live in self._live.values():
                live.cancel(name)
            if asking := self._asking.pop(name, None):
                asking[0](None)

    def step(self) -> None:
        """One step of every model that has something to do."""
        now = time.monotonic()
        for model, live in self._live.items():
            if live.busy:
                self._used[model] = now
                for event in live.step():
                    self._tell(event)

    def release(self) -> None:
        """Give back the caches of models that nobody asks."""
        for model, live in self._live.items():
            if self._used[model] and not live.busy:
                live.close()
                self._used[model] = 0.0

    def idle_since(self) -> float:
        return max(self._used.values())

    def end(self) -> None:
        """Nobody waits for what does not come."""
        for tell, _ in self._asking.values():
            refuse(tell, ENDING)
        self._asking.clear()

    def _tell(self, event: Drawn | Echo) -> None:
        if event.name not in self._asking:  # another rank than the first
            return
        tell, left = self._asking[event.name]
        if isinstance(event, Echo):
            tell({"kind": "echo", "scores": [[each.logprob, each.top] for each in event.scores]})
            return
        score = event.scored and [event.scored.logprob, event.scored.top]
        tell({"kind": "token", "sample": event.sample, "token": event.token, "finish": event.finish_reason, "score": score})
        if event.finish_reason:
            self._asking[event.name] = (tell, left - 1)
            if left == 1:
                del self._asking[event.name]
                tell(None)


def _brief(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


_WANTED = TypeAdapter(Wanted)
