"""How one gets in: the link that the start prints and opens, and the page that says where to find it."""

from __future__ import annotations

import html
import json
import os
import stat
import string
import sys
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, Response

from ui import access
from ui.access import Access, Mode
from workbench.machines import logins
from workbench.machines.logins import AppLogin
from workbench.rundir.files import write_atomic

PAGE = string.Template(Path(__file__).with_name("door.html").read_text())
MARK = Path(__file__).parents[1] / "static" / "favicon.svg"
WAYS: dict[Mode, str] = {
    "owner": "<p>Open the link that the start of the app printed, or print it again, on the machine that runs it:</p><pre>workbench app-url</pre>"
    "<p>This browser stays logged in afterwards, through restarts of the app too.</p>",
    "team": "<p>Open the link that the owner of this app gave you; it is yours alone. Lost it? The owner makes a new one:</p>"
    "<pre>workbench team remove NAME\nworkbench team add NAME</pre>",
}


def closed(asked: HTTPConnection, reason: str, login_to: Mode | None) -> Response:
    """What is answered instead of the app: a page for a person, JSON for a program. It says how to get in where a login is all that is missing."""
    status, no_store = 401 if login_to else 403, {"cache-control": "no-store"}
    if "text/html" not in asked.headers.get("accept", ""):
        return JSONResponse({"error": reason}, status, no_store)
    way = WAYS[login_to] if login_to else ""
    title = "Log in to see the runs" if login_to else "The app does not answer here"
    page = PAGE.substitute(mark=MARK.read_text(), title=title, reason=html.escape(reason), way=way)
    return HTMLResponse(page, status, no_store)


def opened(to: Access) -> Callable[[object], AbstractAsyncContextManager[dict[str, object] | None]]:
    """The app's lifespan: the login link is made when the port is known, and taken to the terminal and the desktop."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[dict[str, object] | None]:
        login = access.register(to)
        _announce(to, login)
        page = _open_browser(login)
        yield None
        if page:
            page.unlink(missing_ok=True)

    return lifespan


def _announce(to: Access, login: AppLogin) -> None:
    """The link on standard output, unless that is a file that others can read."""
    if to.mode == "team":
        print(f"\n  Alignment Workbench, for a team  {login.origin}\n  Who may read: workbench team list, add NAME, remove NAME\n", flush=True)
        if login.origin.startswith("http://"):
            print(
                "warning: over http, login links and all that is shown cross the network in clear; put TLS before the app",
                file=sys.stderr,
                flush=True,
            )
    elif _others_read(sys.stdout.fileno()):
        print(
            f"\n  Alignment Workbench  {login.origin}\n  The login link: workbench app-url  (others can read this file, so it is not printed here)\n",
            flush=True,
        )
    else:
        print(f"\n  Alignment Workbench  {login.url}\n  Once more: workbench app-url\n", flush=True)


def _others_read(file: int) -> bool:
    mode = os.fstat(file).st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o044)


def _open_browser(login: AppLogin) -> Path | None:
    """Open the link where a desktop is there to show it; by a file, since everybody can read the arguments of a browser's process."""
    desktop = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not (desktop and login.token and sys.stdout.isatty()) or os.environ.get("CI") or os.environ.get("HEADLESS"):
        return None
    page = logins.state_folder() / f"open-{login.port}.html"
    write_atomic(page, f"<!doctype html><script>location.replace({json.dumps(login.url)})</script>")
    webbrowser.open(page.as_uri())
    return page
