"""The share of a PPO step that goes into asking servers: round trips less what the servers say that they took, from a real short run.

Requests go out while answers are still being sampled, so their time on the wire is in part hidden: what the policy waits for is reported beside it.
"""

from __future__ import annotations

import json
import statistics
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from workbench import api
from workbench import metrics as M
from workbench.bench import short_ppo
from workbench.bench.relay import relayed
from workbench.rundir.files import write_atomic

ENDPOINTS = ("critic_infer", "reward_model", "critic_train")
WAITS = ("reward", "critic_infer", "critic_wait")
"""Phases in which the policy does nothing but wait for a server."""
POLL_S = 0.02


@dataclass(frozen=True)
class Share:
    """Medians of a step, in seconds: of the whole, on the wire and in the server by endpoint, and the policy's waits."""

    link: str
    step_s: float
    wire_s: dict[str, float]
    server_s: dict[str, float]
    waits_s: float

    @property
    def on_the_wire(self) -> float:
        """As a share of the step; of requests side by side each counts."""
        return sum(self.wire_s.values()) / self.step_s

    @property
    def waiting(self) -> float:
        return self.waits_s / self.step_s

    def record(self) -> dict[str, object]:
        return {**asdict(self), "on_the_wire": self.on_the_wire, "waiting": self.waiting}


def measure(source: str, link: str, count: int, one_way_s: float | None = None) -> Share:
    """Of one run of `count` steps with critic and reward served, its requests through a relay where `one_way_s` is given."""
    with ExitStack() as stack:

        def through_relay(run: api.Run) -> None:
            if one_way_s is not None:
                stack.enter_context(_Detour(run, one_way_s))

        return share(link, short_ppo.steps(source, short_ppo.SERVED, count, through_relay))


def share(link: str, steps: Sequence[short_ppo.Step]) -> Share:
    def median(name: str) -> float:
        return statistics.median(step.get(name, 0.0) for step in steps)

    return Share(
        link=link,
        step_s=median(M.STEP_TIME_S),
        wire_s={name: median(M.WIRE_OF(name)) for name in ENDPOINTS},
        server_s={name: median(M.SERVER_OF(name)) for name in ENDPOINTS},
        waits_s=statistics.median(sum(step.get(M.TIME_OF(name), 0.0) for name in WAITS) for step in steps),
    )


class _Detour:
    """While it lasts, each server that a run announces is announced at a relay's address instead."""

    def __init__(self, run: api.Run, one_way_s: float):
        self._folder, self._one_way_s = run.dir.path / "endpoints", one_way_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="detour")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        with ExitStack() as relays:
            ours: set[str] = set()
            while not self._ended.wait(POLL_S):
                for path in self._folder.glob("*.json"):
                    try:
                        address = json.loads(path.read_text())
                    except FileNotFoundError:  # withdrawn this moment
                        continue
                    if address["url"] not in ours:
                        url = relays.enter_context(relayed(address["url"], self._one_way_s))
                        ours.add(url)
                        write_atomic(path, json.dumps({**address, "url": url}))
