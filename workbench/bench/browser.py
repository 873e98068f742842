"""The app as a user starts it, and a real Chromium to look at it: for measurements, and for the tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.machines import logins
from workbench.settings.shipped import APP

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = Path("/usr/bin/chromium")
START_TIMEOUT_S = 240
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Server:
    """The app over a folder of runs, as `workbench app` starts it. Its log and its logins lie beside that folder.

    `program` is what starts the app, `folder` the working directory (this process's without it), and `environment` is added to this process's.
    """

    runs: Path
    port: int = field(default_factory=free_port)
    environment: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = (sys.executable, "-m", "streamlit", "run", str(APP))
    folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def login(self) -> str:
        """The link that logs a browser in. Raises ValueError where the app does not run."""
        links = [app.url for app in logins.running_apps(self.state) if app.port == self.port]
        if not links:
            raise ValueError(f"no app is running on port {self.port}; see {self.log}")
        return links[0]

    @property
    def state(self) -> Path:
        return self.runs.parent / "state"

    @property
    def log(self) -> Path:
        return self.runs.parent / "app.log"

    def start(self) -> None:
        """Returns when the app answers. Raises TimeoutError."""
        command = [*self.program, "--server.port", str(self.port)]
        env = {**os.environ, "WORKBENCH_RUNS": str(self.runs), "WORKBENCH_STATE": str(self.state), **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=10) as asked:
                    asked.sendall(b"GET /_stcore/health HTTP/1.0\r\nHost: localhost\r\n\r\n")
                    if asked.recv(1):  # it answers, if only that it asks for a login
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise TimeoutError(f"the app did not answer on {self.url}; see {self.log}")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(120)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Raises ValueError where there is no Chromium, or no playwright to drive it."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise ValueError("this needs playwright: pip install -e .[test]") from None
    if not CHROMIUM.exists():
        raise ValueError(f"this needs a Chromium at {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


def new_page(browser: Browser, server: Server | None = None, **options: Any) -> Any:
    """A page in a context of its own, with the defaults of the project's pictures; logged in to the server's app where one is given."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, **options)
    if server:
        context.request.get(server.login, max_redirects=0)  # it keeps the cookie
    page = context.new_page()
    page.set_default_timeout(60_000)
    return page
