"""The real app in a real Chromium: one of each for all tests of the folder, and for each test an empty folder of runs and a page that records what it asks for."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from workbench.bench.browser import CHROMIUM, Server, chromium, new_page
from workbench.steering import presets

expect.set_options(timeout=60_000)  # a busy machine draws late; what has to come soon is timed where that is promised
LOSS = '[data-chart="loss"]'
CUT = """() => [...document.querySelectorAll('[data-testid=stMetricLabel] p, [data-testid=stMetricValue] > div, [data-testid=stButton] p')]
    .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.innerText)"""
"""Headlines and buttons whose text is wider than they are."""


@dataclass
class Seen:
    """What a page did: its requests, and its console's errors."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._console)

    def _console(self, message) -> None:
        # Streamlit's own page asks below a page's address for its server first, and finds it at the root.
        probe = re.search(r"/_stcore/(health|host-config)$", message.location.get("url", ""))
        if message.type == "error" and not probe:
            self.errors.append(f"{message.text} {message.location.get('url', '')}")


def settled(page: Page) -> None:
    """Wait until the app has told all, and what is on the canvas is that."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


def until_charted(page: Page, step: int) -> float:
    """Seconds until the chart of the loss ends at this step or a later one."""
    began = time.perf_counter()
    page.wait_for_function(f"step => +document.querySelector('{LOSS}')?.dataset.last >= step", arg=step, timeout=240_000, polling=25)
    return time.perf_counter() - began


@contextmanager
def started(folder: Path) -> Iterator[Server]:
    """The app over an empty folder of runs, with this process's environment."""
    server = Server(folder / "runs")
    server.runs.mkdir()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What all tests look at. A module whose tests change the environment of the app has a fixture of this name that starts one a test."""
    with started(tmp_path_factory.mktemp("app")) as server:
        yield server


@pytest.fixture
def runs(app: Server) -> Path:
    """The app's folder of runs, without those of the test before."""
    for each in app.runs.iterdir():
        shutil.rmtree(each)
    (app.state / presets.FILE).unlink(missing_ok=True)
    return app.runs


@pytest.fixture
def server(app: Server, runs: Path) -> Server:
    return app


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Playwright takes one at a time: who has this fixture starts no other."""
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with chromium() as browser:
        yield browser


@contextmanager
def page_of(browser: Browser, server: Server, **options) -> Iterator[tuple[Page, Seen]]:
    """A page that is logged in to the server's app, with nothing of what other pages keep."""
    page = new_page(browser, server, **options)
    seen = Seen()
    seen.watch(page)
    try:
        yield page, seen
    finally:
        page.context.close()


@contextmanager
def browser_page(server: Server, **options) -> Iterator[tuple[Page, Seen]]:
    """The same in a browser of its own."""
    with chromium() as browser, page_of(browser, server, **options) as pair:
        yield pair


@pytest.fixture
def page_and_seen(browser: Browser, server: Server) -> Iterator[tuple[Page, Seen]]:
    with page_of(browser, server) as pair:
        yield pair


@pytest.fixture
def page(page_and_seen) -> Page:
    return page_and_seen[0]


@pytest.fixture
def seen(page_and_seen) -> Seen:
    return page_and_seen[1]
