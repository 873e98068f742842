"""An endpoint: rank 0 takes requests from PyTriton's threads, and every rank of the layout decodes them, until a stop or until nobody asks any more."""

from __future__ import annotations

import asyncio
import functools
import os
import queue
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from workbench.engine import parallel
from workbench.processes import served_models
from workbench.processes.controls import Controls
from workbench.processes.decoder import Decoder, Inbox, Orders, Part, Tell
from workbench.processes.measuring import BY_RULE, AttributeModel, Measures
from workbench.processes.rank import Rank
from workbench.processes.served_models import Served
from workbench.rollout.live import Ask
from workbench.rundir import beats
from workbench.serve import sealed, streaming
from workbench.serve.front import Front
from workbench.serve.listening import listening
from workbench.serve.offered import Offered
from workbench.serve.streaming import Asking
from workbench.serve.triton import Triton
from workbench.settings import CheckpointsJob

POLL_S = 0.2
"""How long the decoder waits for a request before it looks for a stop."""
CACHES_S = 30.0
"""Caches of a model that nobody asked for so long are given back."""


class Serving:
    """One rank of it."""

    def __init__(self, rank: Rank):
        assert isinstance(rank.spec.job, CheckpointsJob)
        self._rank, self._cfg = rank, rank.spec.job
        _check_layout(rank)
        names = self._cfg.checkpoints or (rank.spec.model.source,)
        self._models = served_models.load(names, rank.spec.model, lambda message: rank.emit("phase", message=message))
        contexts = [model.context for model in self._models if model.context]
        self._longest = min([self._cfg.max_length, *contexts])
        self._decoder = Decoder(self._models, self._cfg.slots, self._longest)
        self._controls = Controls(
            rank, lambda values: rank.warn(f"not changed: {', '.join(values)}; an endpoint has no settings that may be changed")
        )
        measure = self._cfg.measure and AttributeModel(Path(self._cfg.measure), rank.spec.model)
        self._measures = Measures(self._cfg.rules if parallel.rank() == 0 else (), measure or None)
        self._inbox = Inbox()
        self._measuring: list[Tell] = []
        self._began = self._looked = time.monotonic()
        self._terminated = False

    def go(self) -> None:
        """Answer to a stop, or until nobody has asked for long."""
        rank = self._rank
        signal.signal(signal.SIGTERM, self._on_sigterm)
        with ExitStack() as stack:
            triton = self._open(stack) if parallel.rank() == 0 else None
            rank.emit("state", state="running", step=0, total_steps=0)
            with beats.doing("idle"):
                reason = self._loop(triton)
            self._inbox.close()
            self._decoder.end()
        rank.emit("end", reason=reason, step=0)

    def _on_sigterm(self, *_: object) -> None:
        self._terminated = True

    def _open(self, stack: ExitStack) -> Triton:
        """PyTriton in front of the decoder, and HTTP in front of PyTriton."""
        cfg, key = self._cfg, sealed.new_key()
        triton = stack.enter_context(streaming.serving(key, self._inbox.parts))
        offered = [self._offered(model) for model in self._models]

        def make() -> Any:
            asking = Asking(triton.socket, key)
            measure = functools.partial(self._measure, asking) if self._measures else None
            return Front(offered, asking, cfg.max_waiting, measure).app()

        host = os.environ.get("MASTER_ADDR", "127.0.0.1")
        url = stack.enter_context(listening(self._rank.run.path, host, cfg.port, cfg.max_request_mb << 20, make))
        self._rank.emit("phase", message=f"serving {', '.join(model.id for model in self._models)} at {url}")
        return triton

    async def _measure(self, asking: Asking, messages: Sequence[Mapping[str, str]], response: str) -> tuple[dict[str, float], dict[str, str]]:
        """By rules here, in a thread of their own; by the model where the collectives run. Raises ValueError."""
        ratings = await asyncio.to_thread(self._measures.by_rule, messages, response)
        by = dict.fromkeys(ratings, BY_RULE)
        if self._measures.model:
            async for part in asking.parts({"op": "measure", "messages": messages, "response": response}):
                if part["kind"] == "refused":
                    raise ValueError(part["message"])
                ratings |= part["attributes"]
                by |= dict.fromkeys(part["attributes"], self._measures.model.id)
        return ratings, by

    def _offered(self, model: Served) -> Offered:
        if model.chat:
            model.chat.template  # noqa: B018  # the first conversation is rendered here, not while somebody waits
        vocabulary = model.reader.hf_config.vocab_size
        return Offered(
            model.id,
            model.source,
            model.step,
            model.created,
            model.targets,
            model.tokenizer,
            model.chat,
            vocabulary,
            self._longest,
            self._cfg.slots,
        )

    def _loop(self, triton: Triton | None) -> str:
        while True:
            orders = parallel.from_first(self._orders(triton) if parallel.rank() == 0 else Orders())
            if orders.end:
                return "completed"
            self._decoder.follow(orders)
            for messages, response in orders.measured:
                self._answer_measure(messages, response)
            if orders.look:
                beats.moved()
                if self._controls.stop_requested(0):
                    return "stopped"
            if self._decoder.busy:
                self._decoder.step()
            elif orders.look and time.monotonic() - self._decoder.idle_since() > CACHES_S:
                self._decoder.release()

    def _answer_measure(self, messages: Sequence[Mapping[str, str]], response: str) -> None:
        """Every rank computes it; rank 0 tells who asked."""
        assert self._measures.model is not None
        try:
            part: Part = {"kind": "measured", "attributes": self._measures.model.measure(messages, response)}
        except ValueError as error:
            part = {"kind": "refused", "message": str(error)}
        if self._measuring:
            tell = self._measuring.pop(0)
            tell(part)
            tell(None)

    def _orders(self, triton: Triton | None) -> Orders:
        """On rank 0: what has come since. Waits for a request where there is nothing to do."""
        assert triton is not None
        asks: list[tuple[str, Ask]] = []
        cancelled: list[str] = []
        measured: list[tuple[Sequence[Mapping[str, str]], str]] = []
        try:
            while True:
                idle = not (self._decoder.busy or asks or cancelled or measured)
                request, tell = self._inbox.waiting.get(timeout=POLL_S) if idle else self._inbox.waiting.get_nowait()
                if request["op"] == "cancel":
                    cancelled += request["names"]
                    tell(None)
                elif request["op"] == "measure":
                    measured.append((request["messages"], request["response"]))
                    self._began = time.monotonic()
                    self._measuring.append(tell)
                elif ask := self._decoder.accepted(request, tell):
                    asks.append(ask)
        except queue.Empty:
            pass
        now = time.monotonic()
        look = now - self._looked > POLL_S
        if look:
            self._looked = now
            if not triton.is_alive():
                raise RuntimeError("tritonserver of the endpoint died")
            triton.keep_account()
        return Orders(asks, cancelled, measured, look, end=self._terminated or self._idle(now))

    def _idle(self, now: float) -> bool:
        return not self._decoder.busy and is_over(now, max(self._began, self._decoder.idle_since()), self._cfg.idle_timeout_s)


def is_over(now: float, last: float, idle_timeout_s: float) -> bool:
    """Whether nobody has asked for so long that the endpoint ends; 0 is for ever."""
    return 0 < idle_timeout_s < now - last


def _check_layout(rank: Rank) -> None:
    """Raises ValueError for a layout that the decoder has not."""
    model = rank.spec.model
    others = {
        f"model.{name}": getattr(model, name) for name in ("pipeline_parallel", "context_parallel", "expert_parallel") if getattr(model, name) > 1
    }
    if others:
        key, value = next(iter(others.items()))
        raise ValueError(f"{key}={value}: an endpoint decodes with tensor parallelism alone; set {key}=1 and model.tensor_parallel={value}")
    if parallel.world_size() != model.tensor_parallel:
        raise ValueError(
            f"{parallel.world_size()} processes for model.tensor_parallel={model.tensor_parallel}: an endpoint has one copy of each model;"
            f" set model.tensor_parallel={parallel.world_size()}, or launch several endpoints"
        )
