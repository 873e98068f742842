"""From a rank to the browser: how old an event and a rollout are when they are drawn, by how many are written and how many people watch.

Ranks of a run write with the run's own writers: the first its events and rollout files, the others their beats. The app serves the folder. One real
Chromium has the Run page and the Rollouts page open. The other viewers do what that page does, without drawing: each has a session of the app,
reruns its fragments when the app says so, and asks the feed of the charts twice a second.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
from rich.console import Console
from rich.table import Table

from workbench import metrics as M
from workbench.backends import local
from workbench.backends.base import Job
from workbench.bench.browser import Server, chromium, new_page
from workbench.jobs.preflight import file_system
from workbench.rundir import beats, lines, rollout_files, rollouts, store
from workbench.rundir.events import EventWriter
from workbench.rundir.store import RunDir, State
from workbench.settings import spec

RANKS = 4
LIMIT_S = 2.0
ROLLOUTS_EVERY_S = 2.0
ANSWERS, ANSWER_TOKENS = 16, 64
SETTLE_S = 60.0
METRICS = (M.LOSS, M.GRAD_NORM, M.LR, M.REWARDS, M.ENTROPY, M.PPO_RATIO, M.CLIP_FRACTION, M.CRITIC_LOSS, M.TOKENS_PER_S, M.STEP_TIME_S)
RECORD = """pattern => {
  window.wbSeen = [];
  let last = -1;
  setInterval(() => {
    const found = pattern ? [...document.querySelectorAll('p')].map((p) => p.textContent.match(pattern)).find(Boolean)?.[1].replaceAll(',', '')
                          : document.querySelector('[data-chart="loss"]')?.dataset.last;
    if (found !== undefined && +found !== last) window.wbSeen.push([Date.now() / 1000, last = +found]);
  }, 5);
}"""
"""What a page shows, each time that it changes: how many rollouts where the pattern finds that, or else the last step of the loss curve."""

Seen = list[tuple[float, float]]
"""(when, how many steps or rollouts were to be seen then), in order."""


@dataclass(frozen=True)
class Ages:
    """How old things were when they were seen, in seconds."""

    ages_s: Sequence[float] = field(repr=False)

    def quantile(self, share: float) -> float:
        """The nearest rank's; of fewer than 100 ages, the 99th percentile is the oldest."""
        return sorted(self.ages_s)[math.ceil(share * len(self.ages_s)) - 1] if self.ages_s else math.nan

    @property
    def record(self) -> dict[str, float]:
        ms = {name: 1e3 * self.quantile(share) for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))}
        return {"count": len(self.ages_s), **{name: round(value, 1) for name, value in ms.items()}}


@dataclass(frozen=True)
class Measured:
    """One rate with one number of viewers. `charts` and `rollouts` are what Chromium drew, `feeds` what the other viewers' feeds gave."""

    per_s: float
    viewers: int
    charts: Ages
    rollouts: Ages
    feeds: Ages
    server_cores: float

    @property
    def good(self) -> bool:
        return self.charts.quantile(0.99) < LIMIT_S and self.rollouts.quantile(0.99) < LIMIT_S

    @property
    def record(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).record for name in ("charts", "rollouts", "feeds")}
        return {"per_s": self.per_s, "viewers": self.viewers, **parts, "server_cores": round(self.server_cores, 2)}


def measure(
    rates: Sequence[float], viewers: Sequence[int], seconds: float, folder: Path | None, seen_at: Path | None, as_json: bool, console: Console
) -> bool:
    """Print a table or JSON; whether every p99 is under two seconds.

    The ranks write into `folder`, which the app reads as `seen_at`. Raises ValueError without a browser, or when the page shows no step.
    """
    results = []
    with ExitStack() as stack:
        root = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="workbench-streaming-")))
        writes, reads = (path / "runs" for path in (root, seen_at or root))
        writes.mkdir(exist_ok=True)
        server = Server(reads)
        server.start()
        stack.callback(server.stop)
        browser = stack.enter_context(chromium())
        status = stack.enter_context(console.status("…"))
        for count in viewers:
            for rate in rates:
                status.update(f"{rate:g} events/s, {count} viewers")
                results.append(_one(server, browser, writes, rate, count, seconds))
    if as_json:
        print(
            json.dumps(
                {"file_system": " at ".join(file_system(writes if not seen_at else reads)), "found": [each.record for each in results]}, indent=2
            )
        )
    else:
        _render(results, " at ".join(file_system(reads)), console)
    return all(each.good for each in results)


def _one(server: Server, browser: Any, writes: Path, rate: float, count: int, seconds: float) -> Measured:
    assert server.process is not None
    run = store.create(writes, f"streaming-{rate:g}", spec.compose(["experiment=ppo_demo"]).to_yaml())
    with _ranks(run, rate, seconds) as ranks:
        pages = [new_page(browser, server), new_page(browser, server)]
        for page, name, pattern in zip(pages, ("run", "rollouts"), (None, r"of ([\d,]+) rollouts"), strict=True):
            page.goto(f"{server.url}/{name}?id={run.id}")
            page.evaluate(f"pattern => ({RECORD})(pattern && new RegExp(pattern))", pattern)
        pages[0].wait_for_function("() => wbSeen.length")
        pages[1].wait_for_function("() => wbSeen.length")
        with _watching(server.url, run.id, _cookies(pages[0]), count - 1) as feeds:
            app = psutil.Process(server.process.pid)
            began, busy = time.monotonic(), sum(app.cpu_times()[:2])
            for rank in ranks:
                assert rank.stdin
                rank.stdin.write(b"go\n")
                rank.stdin.flush()
            assert ranks[0].stdout
            ranks[0].stdout.readline()  # all is written; the rank lives on, or the run would have ended
            cores = (sum(app.cpu_times()[:2]) - busy) / (time.monotonic() - began)
            events = [(event["time"], event["step"]) for event in run.events() if event["kind"] == "step"][1:]
            kept = [cast(dict[str, float], event) for event in run.events() if event["kind"] == "kept"][1:]
            files = [(event["began"], event["done"]) for event in kept]
            for page, (_, last) in zip(pages, (events[-1], files[-1]), strict=True):
                page.wait_for_function("last => wbSeen.at(-1)[1] >= last", arg=last, timeout=1e3 * SETTLE_S)
            _wait_for(feeds, events[-1][1])
        shown = [[(when, value) for when, value in page.evaluate("() => wbSeen")] for page in pages]
        for page in pages:
            page.context.close()
    return Measured(
        rate, count, Ages(ages(events, shown[0])), Ages(ages(files, shown[1])), Ages([age for seen in feeds for age in ages(events, seen)]), cores
    )


def ages(written: Sequence[tuple[float, float]], seen: Seen) -> list[float]:
    """How long after it was written each was first seen. Raises ValueError for one that never was."""
    delays, looks = [], iter(seen)
    when, value = next(looks, (0.0, -math.inf))
    for at, number in written:
        while value < number:
            try:
                when, value = next(looks)
            except StopIteration:
                raise ValueError(f"number {number:g} of {written[-1][1]:g} was never seen; the last was {value:g}") from None
        delays.append(when - at)
    return delays


@contextmanager
def _ranks(run: RunDir, rate: float, seconds: float) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The run's ranks: processes of this module. They wait for a line on their standard input before they begin."""
    command = [sys.executable, "-m", "workbench.bench.streaming", str(run.path), str(rate), str(seconds)]
    ranks = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(RANKS)})
        for rank in range(RANKS)
    ]
    job = Job("local", str(ranks[0].pid), os.uname().nodename, time.time(), local.mark(ranks[0].pid))
    run.update(state=State.RUNNING, attempt=1, total_steps=round(rate * seconds), job=cast(lines.Job, asdict(job)))
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def _cookies(page: Any) -> str:
    """The header that a page's login gives its requests."""
    return "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in page.context.cookies())


@contextmanager
def _watching(url: str, run_id: str, cookies: str, count: int) -> Iterator[list[Seen]]:
    """So many simulated viewers, on a thread of their own; what each one's feed gave."""
    from tornado.httpclient import AsyncHTTPClient

    AsyncHTTPClient.configure(None, max_clients=1000)
    seen: list[Seen] = [[] for _ in range(count)]
    over = threading.Event()

    async def watch() -> None:
        viewers = [asyncio.create_task(_viewer(url, run_id, cookies, feed)) for feed in seen]
        while not over.is_set():
            await asyncio.sleep(0.1)
            for viewer in viewers:
                if viewer.done():
                    viewer.result()
        for viewer in viewers:
            viewer.cancel()
        await asyncio.gather(*viewers, return_exceptions=True)

    failed: list[Exception] = []

    def run() -> None:
        try:
            asyncio.run(watch())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 60
    while not all(seen) and not failed and time.monotonic() < deadline:
        time.sleep(0.1)
    try:
        yield seen
    finally:
        over.set()
        thread.join()
        if failed:
            raise failed[0]


def _wait_for(feeds: Sequence[Seen], last: float) -> None:
    """Until the other viewers have seen as much; `ages` tells of those that never do."""
    deadline = time.monotonic() + SETTLE_S
    while not all(seen and seen[-1][1] >= last for seen in feeds) and time.monotonic() < deadline:
        time.sleep(0.1)


async def _viewer(url: str, run_id: str, cookies: str, seen: Seen) -> None:
    await asyncio.sleep(random.random())  # not all in the same instant
    await asyncio.gather(_session(url, run_id, cookies), _feed(url, run_id, cookies, seen))


async def _feed(url: str, run_id: str, cookies: str, seen: Seen) -> None:
    """What the charts in the page do: the points since the cursor, twice a second."""
    from tornado.httpclient import AsyncHTTPClient

    client, after = AsyncHTTPClient(), ""
    while True:
        answer = await client.fetch(f"{url}/live/{run_id}/metrics?smoothing=0.9&axis=step{after}", headers={"Cookie": cookies})
        cursor = json.loads(answer.body)["cursor"]
        seen.append((time.time(), int(cursor.split(".")[2])))
        after = f"&after={cursor}"
        await asyncio.sleep(0.5)


async def _session(url: str, run_id: str, cookies: str) -> None:
    """What Streamlit in the page does: open the page, and rerun each fragment as often as the app has asked for."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ClientState_pb2 import ClientState
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    request = HTTPRequest(f"{url.replace('http', 'ws')}/_stcore/stream", headers={"Origin": url, "Cookie": cookies})
    connection = await websocket_connect(request, subprotocols=["streamlit"])
    reruns: dict[str, asyncio.Task[None]] = {}
    query: dict[str, str] = {"page_name": "run"}

    async def send(**more: Any) -> None:
        await connection.write_message(
            BackMsg(rerun_script=ClientState(query_string=f"id={run_id}", **query, **more)).SerializeToString(), binary=True
        )

    async def rerun(fragment_id: str, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            await send(fragment_id=fragment_id, is_auto_rerun=True)

    try:
        await send()
        while (message := await connection.read_message()) is not None:
            assert isinstance(message, bytes), "the page's messages are binary"
            forwarded = ForwardMsg.FromString(message)
            if forwarded.WhichOneof("type") == "new_session":
                query = {"page_script_hash": forwarded.new_session.page_script_hash}
            if forwarded.WhichOneof("type") == "auto_rerun" and forwarded.auto_rerun.fragment_id not in reruns:
                name = forwarded.auto_rerun.fragment_id
                reruns[name] = asyncio.create_task(rerun(name, forwarded.auto_rerun.interval))
        raise ConnectionError("the app closed a viewer's session")
    finally:
        for task in reruns.values():
            task.cancel()
        connection.close()


def _render(results: Sequence[Measured], where: str, console: Console) -> None:
    console.print(f"from the rank's write to the browser, in ms (p50 / p99 / largest); runs on {where}", highlight=False, soft_wrap=True)
    table = Table("events/s", "viewers", "curve drawn", "rollouts listed", "other viewers' feeds", "server's cores", box=None, header_style="dim")
    for each in results:
        cells = [" / ".join(f"{1e3 * part.quantile(share):.0f}" for share in (0.5, 0.99, 1)) for part in (each.charts, each.rollouts, each.feeds)]
        table.add_row(f"{each.per_s:g}", str(each.viewers), *cells[:2], cells[2] if each.viewers > 1 else "", f"{each.server_cores:.2f}")
    console.print(table)


def write(run: RunDir, rate: float, seconds: float) -> None:
    """The first rank: so many events a second, and a rollout file every two seconds."""
    events = EventWriter(run)
    events.write("state", state="running", step=0, total_steps=round(rate * seconds))
    _step(events, 1)
    _keep(run, events, 1)
    sys.stdin.readline()
    began, kept = time.monotonic(), 1
    for number in range(1, round(rate * seconds) + 1):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        _step(events, number + 1)
        beats.moved(number)
        if number / rate >= kept * ROLLOUTS_EVERY_S:
            kept += 1
            _keep(run, events, kept)


def _step(events: EventWriter, step: int) -> None:
    events.write("step", step=step, metrics={name: random.random() for name in METRICS})


def _keep(run: RunDir, events: EventWriter, step: int) -> None:
    """A rollout file, and an event that says when it began to be written."""
    records = [_record(step, number) for number in range(ANSWERS)]
    began = time.time()
    rollouts.write(run, step, records)
    events.write("kept", began=began, done=step * ANSWERS)


def _record(step: int, number: int) -> dict[str, Any]:
    pieces = [" word"] * ANSWER_TOKENS
    arrays = {name: [random.gauss(0, 1) for _ in pieces] for name in rollout_files.PER_TOKEN}
    return {
        **{"prompt_id": f"{number // 4:04x}", "sample": number % 4, "prompt": "Say something.", "response": "".join(pieces), "pieces": pieces},
        **{"prompt_tokens": 32, "response_tokens": len(pieces), "tokens": list(range(len(pieces))), "finish_reason": "stop"},
        **{"weights_version": step - 1, "reward": random.random(), "reward/helpful": random.random(), **arrays},
    }


def main() -> None:
    """One rank: RUN_DIR RATE SECONDS."""
    run, rate, seconds = RunDir(Path(sys.argv[1])), float(sys.argv[2]), float(sys.argv[3])
    beats.begin(run, "actor")
    if os.environ["RANK"] == "0":
        write(run, rate, seconds)
        print("written", flush=True)
        sys.stdin.read()
    else:
        sys.stdin.readline()
        for step in range(math.ceil(seconds)):
            beats.moved(step)
            time.sleep(1)


if __name__ == "__main__":
    main()
