"""The real app in a real Chromium: one server a test, on a port of its own, and a page that records what it asks for."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from workbench.bench.browser import CHROMIUM, Server, chromium, new_page

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


@pytest.fixture
def runs(tmp_path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def server(runs) -> Iterator[Server]:
    server = Server(runs)
    server.start()
    yield server
    server.stop()


@contextmanager
def browser_page(server: Server, **options) -> Iterator[tuple[Page, Seen]]:
    """A page that is logged in to the server's app."""
    with chromium() as browser:
        page = new_page(browser, server, **options)
        seen = Seen()
        seen.watch(page)
        yield page, seen


@pytest.fixture
def page_and_seen(server: Server) -> Iterator[tuple[Page, Seen]]:
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with browser_page(server) as pair:
        yield pair


@pytest.fixture
def page(page_and_seen) -> Page:
    return page_and_seen[0]


@pytest.fixture
def seen(page_and_seen) -> Seen:
    return page_and_seen[1]
