"""The owner's app against another user of the machine, a page on another port, and texts that are markup."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest
import yaml
from playwright.sync_api import Page, expect

from tests.app import synthetic_rollouts
from tests.browser.conftest import Seen, browser_page, settled
from tests.trust.asking import ask, get, socket
from workbench.bench.browser import Server
from workbench.machines import logins
from workbench.rundir import rollouts
from workbench.rundir.store import RunDir

pytestmark = pytest.mark.browser
PAGES = ("runs", "run", "rollouts", "compare", "launch", "datasets", "cluster")
PATHS = (
    *("/", "/run", "/favicon.png", "/index.html", "/app/static/favicon.svg", "/live/plotly.min.js", "/live/RUN/metrics", "/media/a.png"),
    *(f"/_stcore/{name}" for name in ("health", "host-config", "metrics", "script-health-check", "agent/openapi.json", "upload_file/a/b")),
)
MARKUP = "[click](http://127.0.0.1:PORT/a) ![i](http://127.0.0.1:PORT/leak?markdown) <img src=http://127.0.0.1:PORT/leak?html> :red[**b**] `c` $x^2$"


@dataclass
class Listener:
    """A web server of somebody else on another port: the pages it serves, and what it was asked."""

    port: int
    asked: list[str]
    pages: dict[str, str]


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    found = Listener(0, [], {})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            body = found.pages.get(self.path, "").encode()
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, listener: Listener) -> RunDir:
    """A run whose name, model, prompts, answers and messages are Markdown and HTML with pictures on the listener."""
    folder = tmp_path_factory.mktemp("app") / "runs [a](b) `c`"
    folder.mkdir()
    markup = MARKUP.replace("PORT", str(listener.port))
    run = synthetic_rollouts.make(folder, 0)
    tree = yaml.safe_load(run.spec_path.read_text())
    tree["name"], tree["model"]["source"] = markup, markup
    run.spec_path.chmod(0o600)
    run.spec_path.write_text(yaml.safe_dump(tree))
    for step in (1, 2):
        made = synthetic_rollouts.records(step)
        changed = [{**row, "prompt": markup, "response": markup, "pieces": [markup, *row["pieces"][1:]], "prompt_id": markup} for row in made]
        rollouts.write(run, step, changed)
    run.update(message=f"\x1b[31m{markup}\x1b[0m")
    return run


@pytest.fixture(scope="module")
def server(run: RunDir) -> Iterator[Server]:
    server = Server(run.path.parent)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser(server: Server) -> Iterator[tuple[Page, Seen]]:
    with browser_page(server) as pair:
        yield pair


@pytest.fixture(scope="module")
def login(server: Server) -> logins.AppLogin:
    (login,) = logins.running_apps(server.state)
    return login


@pytest.fixture(scope="module")
def cookie(login: logins.AppLogin) -> str:
    return f"workbench-{login.port}={logins.session_of(login.token)}"


def test_another_user_gets_no_byte_even_with_the_owners_token(server: Server, login: logins.AppLogin, cookie: str, run: RunDir, intruder) -> None:
    paths = [*(path.replace("RUN", run.id) for path in PATHS), f"/?token={login.token}"]
    requests = [get(path, server.port, Cookie=cookie) for path in paths]
    requests += [
        socket(server.port, Cookie=cookie, Origin=server.url),
        get("/_stcore/upload_file/a/b", server.port, "PUT", Cookie=cookie, Origin=server.url),
    ]
    answers = ask(server.port, requests, as_user=intruder)
    assert [answer.status for answer in answers] == [403] * len(requests)
    assert not [answer for answer in answers if run.id in answer.body or "set-cookie" in answer.head]
    assert all("belongs to another user" in answer.body for answer in answers if answer.body)
    assert not intruder.reads(server.state)
    assert not intruder.reads(next(server.state.glob("app-*.json")))


def test_the_owner_without_the_cookie_gets_no_byte_either(server: Server, run: RunDir, cookie: str) -> None:
    requests = [get(path.replace("RUN", run.id), server.port) for path in PATHS]
    answers = ask(server.port, [*requests, get("/", server.port, Cookie=cookie[:-1]), get("/?token=x", server.port)])
    assert {answer.status for answer in answers} == {401}
    assert not [answer for answer in answers if "streamlit" in answer.body.lower() or run.id in answer.body]
    (page,) = ask(server.port, [get("/", server.port, Accept="text/html")])
    assert "workbench app-url" in page.body
    answers = ask(
        server.port, [get(path.replace("RUN", run.id), server.port, Cookie=cookie) for path in ("/", "/_stcore/health", "/live/RUN/metrics")]
    )
    assert [answer.status for answer in answers] == [200, 200, 200]


def test_the_login_link_becomes_a_cookie(server: Server, login: logins.AppLogin, cookie: str) -> None:
    paths = (f"/run?id=a%26b&token={login.token}", f"//evil.example/a?token={login.token}", f"/\\evil.example?token={login.token}")
    answers = ask(server.port, [get(path, server.port) for path in paths])
    assert [answer.status for answer in answers] == [303] * 3
    sent = [dict(line.split(": ", 1) for line in answer.head.split("\r\n")[1:]) for answer in answers]
    assert [headers["location"] for headers in sent] == ["/run?id=a%26b", "/evil.example/a", "/%5Cevil.example"]
    assert sent[0]["set-cookie"].startswith(f"{cookie}; HttpOnly; ") and "SameSite=lax" in sent[0]["set-cookie"]
    for name in (
        "content-security-policy",
        "referrer-policy",
        "x-content-type-options",
        "cross-origin-opener-policy",
        "cross-origin-resource-policy",
    ):
        assert all(name in headers for headers in sent)


def test_the_websocket_takes_exactly_its_own_origin(server: Server, cookie: str) -> None:
    others = (
        f"http://127.0.0.1:{server.port + 1}",
        f"http://localhost:{server.port}",
        f"https://127.0.0.1:{server.port}",
        "http://127.0.0.1",
        "null",
    )
    requests = [socket(server.port, Cookie=cookie, Origin=other) for other in others]
    answers = ask(server.port, [*requests, socket(server.port, Cookie=cookie), socket(server.port, Origin=server.url)])
    assert [answer.status for answer in answers] == [403] * 7
    assert ask(server.port, [socket(server.port, Cookie=cookie, Origin=server.url)])[0].status == 101


def test_what_changes_something_needs_its_own_origin(server: Server, cookie: str) -> None:
    path, other = "/_stcore/upload_file/a/b", f"http://localhost:{server.port}"
    for method in ("PUT", "DELETE", "POST", "OPTIONS"):
        foreign, without, own = ask(
            server.port, [get(path, server.port, method, Cookie=cookie, **origin) for origin in ({"Origin": other}, {}, {"Origin": server.url})]
        )
        assert (foreign.status, without.status) == (403, 403)
        assert "own pages" in foreign.body and "own pages" in without.body
        assert "own pages" not in own.body and "access-control-allow-origin" not in foreign.head


def test_a_page_on_another_port_reads_and_frames_nothing(server: Server, run: RunDir, browser: tuple[Page, Seen], listener: Listener) -> None:
    """In the owner's own browser, which sends its cookies to every port of the host."""
    page = browser[0].context.new_page()
    urls = f"127.0.0.1:{server.port}", f"localhost:{server.port}"
    listener.pages["/page"] = "".join(
        f'<iframe src="http://{url}/run"></iframe><script src="http://{url}/live/plotly.min.js"></script>' for url in urls
    )
    page.goto(f"http://127.0.0.1:{listener.port}/page")
    for url in urls:
        opened = page.evaluate(
            "url => new Promise(done => { const s = new WebSocket(url, ['streamlit']); s.onopen = () => done('open'); s.onclose = () => done('closed'); })",
            f"ws://{url}/_stcore/stream",
        )
        assert opened == "closed"
        read = "url => fetch(url, {credentials: 'include'}).then(answer => answer.text()).catch(error => error.name)"
        assert page.evaluate(read, f"http://{url}/live/{run.id}/metrics") == "TypeError"
    assert page.evaluate("() => typeof Plotly") == "undefined"
    framed = [frame for frame in page.frames if frame != page.main_frame]
    assert len(framed) == 2
    assert not [frame for frame in framed if "Streamlit" in frame.content() or frame.locator("#root").count()]
    page.close()


def test_no_secret_is_in_a_process_or_a_file_that_others_read(server: Server, login: logins.AppLogin) -> None:
    secrets = login.token, logins.session_of(login.token)
    looked_at = set()
    for pid in psutil.pids():
        for name in ("cmdline", "environ"):
            try:
                text = Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or closed to this user too
                continue
            assert not [secret for secret in secrets if secret in text], (pid, name)
            looked_at.add((pid, name))
    assert server.process and {(server.process.pid, name) for name in ("cmdline", "environ")} <= looked_at
    assert server.log.stat().st_mode & 0o044
    assert not [secret for secret in secrets if secret in server.log.read_text()]
    assert "workbench app-url" in server.log.read_text()


def test_markup_of_a_run_is_text_on_every_page_and_asks_nobody(server: Server, run: RunDir, browser: tuple[Page, Seen], listener: Listener) -> None:
    page, seen = browser
    listener.asked.clear()
    for name in PAGES:
        page.goto(f"{server.url}/{name}?id={run.id}")
        expect(page.get_by_role("heading", level=2).first).to_be_visible()
        settled(page)
        assert page.locator('img[src*="leak"], .stMarkdown code:text-is("c"), .stMarkdown strong:text-is("b"), .katex').count() == 0, name
        links = page.locator(f'a[href*=":{listener.port}/"]').all()  # an address in a text may be one to click on, if it says where it goes
        assert all(link.inner_text() in str(link.get_attribute("href")) for link in links), name
    page.goto(f"{server.url}/rollouts?id={run.id}")
    expect(page.locator(".wb-token").first).to_be_visible()
    expect(page.locator(".wb-prompt")).to_contain_text("![i](http://127.0.0.1")
    page.goto(f"{server.url}/run?id={run.id}")
    expect(page.get_by_role("heading", level=2).first).to_contain_text("![i](http://127.0.0.1")
    page.goto(f"{server.url}/run?id={run.id}%60![i](http://127.0.0.1:{listener.port}/leak?id)")
    expect(page.get_by_text("There is no run")).to_contain_text("runs [a](b) `c`")
    assert seen.errors == []
    assert listener.asked == []


def test_the_policy_holds_where_a_page_draws_a_picture_all_the_same(server: Server, browser: tuple[Page, Seen], listener: Listener) -> None:
    """The second line: what escaping lets through, the browser does not send."""
    page = browser[0].context.new_page()
    page.goto(f"{server.url}/runs")
    expect(page.get_by_role("heading", level=2).first).to_be_visible()
    listener.asked.clear()
    blocked = page.evaluate(
        """async url => {
          const seen = new Set();
          document.addEventListener('securitypolicyviolation', event => seen.add(event.effectiveDirective));
          const image = new Image();
          image.src = url;
          const fetched = await fetch(url, {mode: 'no-cors'}).then(() => 'sent', () => 'blocked');
          const frame = Object.assign(document.createElement('iframe'), {src: url});
          const script = Object.assign(document.createElement('script'), {src: url});
          const sheet = Object.assign(document.createElement('link'), {rel: 'stylesheet', href: url});
          document.body.append(image, frame, script, sheet);
          while (seen.size < 5) await new Promise(done => setTimeout(done, 20));
          return [fetched, ...[...seen].sort()];
        }""",
        f"http://127.0.0.1:{listener.port}/leak?data",
    )
    assert blocked == ["blocked", "connect-src", "frame-src", "img-src", "script-src-elem", "style-src-elem"]
    assert listener.asked == []
    page.close()


@pytest.mark.parametrize(
    ("words", "environment", "reason"),
    [
        (["--server.address", "0.0.0.0"], {}, "launch and control everything"),
        ([], {"WORKBENCH_APP": "team"}, "WORKBENCH_ORIGIN=https://wb.example.org"),
    ],
)
def test_an_app_that_keeps_nobody_out_does_not_start(tmp_path: Path, words: list[str], environment: dict[str, str], reason: str) -> None:
    command = [sys.executable, "-m", "streamlit", "run", "app", "--server.port", "0", *words]
    env = {**os.environ, "WORKBENCH_STATE": str(tmp_path), **environment}
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode != 0
    assert re.search(f"The app does not start: .*{re.escape(reason)}", done.stderr), done.stderr
