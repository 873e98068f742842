"""The real app in a real Chromium: one server a test, on a port of its own, and a page that records what it asks for."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Server:
    """`streamlit run app` as a user starts it, from the repository's root."""

    runs: Path
    port: int
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "streamlit", "run", "app", "--server.port", str(self.port)]
        env = {**os.environ, "WORKBENCH_RUNS": str(self.runs)}
        log = (self.runs.parent / "app.log").open("ab")
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise TimeoutError(f"the app did not answer on {self.url}; see {self.runs.parent / 'app.log'}")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(20)


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


@pytest.fixture
def runs(tmp_path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def server(runs) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(runs, port)
    server.start()
    yield server
    server.stop()


@contextmanager
def browser_page(**options) -> Iterator[tuple[Page, Seen]]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        page = browser.new_context(viewport={"width": 1440, "height": 1000}, **options).new_page()
        page.set_default_timeout(30_000)
        seen = Seen()
        seen.watch(page)
        yield page, seen
        browser.close()


@pytest.fixture
def page_and_seen() -> Iterator[tuple[Page, Seen]]:
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    with browser_page() as pair:
        yield pair


@pytest.fixture
def page(page_and_seen) -> Page:
    return page_and_seen[0]


@pytest.fixture
def seen(page_and_seen) -> Seen:
    return page_and_seen[1]
