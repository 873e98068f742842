"""How long a policy endpoint takes to the first token of an answer, and how many tokens it gives a second: one request at a time, and several at once.

Over HTTP, from the request to the chunk that has the first token: the template, the tokenizer, PyTriton and the prefill are all in it. The questions are all
different, so that nothing is kept from one to the next.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from workbench import api
from workbench.bench.kept import runs_in
from workbench.serve.completions import Completions

QUESTION = "Number {} of several questions: what is the capital of France, and what is it known for? Answer in a few sentences."
POLL_S, START_S = 0.05, 240.0


@dataclass(frozen=True)
class Measured:
    """Requests of `at_once` clients: medians over them, and the tokens of all a second of wall clock."""

    at_once: int
    requests: int
    first_token_s: float
    slowest_first_token_s: float
    tokens_per_s: float
    tokens_per_s_each: float


def measure(model: str, at_once: int, rounds: int, tokens: int, as_json: bool, console: Console) -> bool:
    """Print a table or JSON: one request at a time, then `at_once`. Whether the first token of one alone came within a second.

    Raises:
        ValueError: the endpoint did not start.
    """
    with console.status(f"{model}: starting") as status, _served(model) as client:
        (served,) = client.models()
        _round(client, served.id, 1, tokens, 0)  # the first request finds no cache
        measured = []
        for count in (1, at_once):
            each: list[tuple[float, int, float]] = []
            seconds = 0.0
            for i in range(rounds):
                status.update(f"{model}: {count} at once, round {i + 1} of {rounds}")
                began = time.perf_counter()
                each += _round(client, served.id, count, tokens, 1 + i * count)
                seconds += time.perf_counter() - began
            measured.append(_summary(count, each, seconds))
    if as_json:
        print(json.dumps({"model": model, "tokens": tokens, "measured": [asdict(row) for row in measured]}))
    else:
        table = Table("at once", "first token, s", "slowest, s", "tokens/s, all", "tokens/s of each", box=None, header_style="dim")
        for row in measured:
            numbers = (row.first_token_s, row.slowest_first_token_s, row.tokens_per_s, row.tokens_per_s_each)
            table.add_row(str(row.at_once), *(f"{number:.3g}" for number in numbers))
        console.print(table)
    return measured[0].first_token_s < 1.0


def _summary(count: int, each: list[tuple[float, int, float]], seconds: float) -> Measured:
    firsts = [first for first, _, _ in each]
    rates = [(number - 1) / (last - first) for first, number, last in each if number > 1]
    return Measured(
        count, len(each), statistics.median(firsts), max(firsts), sum(number for _, number, _ in each) / seconds, statistics.median(rates or [0.0])
    )


def _round(client: Completions, model: str, count: int, tokens: int, first: int) -> list[tuple[float, int, float]]:
    """Of each request: seconds to its first token, its tokens, seconds to its last."""

    def ask(number: int) -> tuple[float, int, float]:
        began, first_s, last_s, drawn = time.perf_counter(), 0.0, 0.0, 0
        messages = [{"role": "user", "content": QUESTION.format(number)}]
        for delta in client.stream(model, messages, max_tokens=tokens, temperature=1.0, seed=number):
            last_s = time.perf_counter() - began
            first_s, drawn = first_s or last_s, drawn + len(delta.token_ids)
        return first_s, drawn, last_s

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(ask, range(first, first + count)))


@contextmanager
def _served(model: str) -> Iterator[Completions]:
    """The client of an endpoint of its own, in a folder of runs of its own."""
    with tempfile.TemporaryDirectory(prefix="workbench-endpoint-") as folder, runs_in(Path(folder)):
        run = api.serve([model])
        try:
            yield _started(run)
        finally:
            if not run.status.state.ended:
                run.stop()
                run.wait(60)


def _started(run: api.Run) -> Completions:
    deadline = time.monotonic() + START_S
    while True:
        try:
            return api.endpoint(run.id)
        except ValueError as error:
            if run.status.state.ended or time.monotonic() > deadline:
                raise ValueError(f"the endpoint did not start: {error}\n{run.log_tail(lines=12)}") from None
        time.sleep(POLL_S)
