"""The app for a team: members read what the owner's runs say, and launch, control and check nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from typer.testing import CliRunner

from tests.app import synthetic_rollouts
from tests.browser.conftest import Seen, browser_page, settled
from tests.trust.asking import ask, get, socket
from workbench.bench.browser import Server, free_port
from workbench.machines import logins
from workbench.rundir.store import RunDir, State
from workbench.terminal.cli import app

pytestmark = pytest.mark.browser
OWNERS_PAGES = {"launch": "Launch", "datasets": "Datasets"}
MEMBERS_PAGES = {"runs": "Runs", "run": "Run", "rollouts": "Rollouts", "compare": "Compare", "cluster": "Cluster"}
CONTROLS = ("Stop", "Kill", "Clone", "Resume", "New run", "Pause", "Launch", "Generate with it", "Evaluate it", "Check", "Apply at the next step")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("team") / "runs"
    folder.mkdir()
    return synthetic_rollouts.make(folder, 2)


@pytest.fixture(scope="module")
def server(run: RunDir) -> Iterator[Server]:
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        server = Server(run.path.parent, port, {"WORKBENCH_APP": "team", "WORKBENCH_ORIGIN": f"http://127.0.0.1:{port}"})
        patch.setenv("WORKBENCH_STATE", str(server.state))
        server.start()
        yield server
        server.stop()


def told(*words: str) -> str:
    """What `workbench team …` prints."""
    done = CliRunner().invoke(app, ["team", *words])
    assert done.exit_code == 0, done.output
    return done.output.strip()


@pytest.fixture(scope="module")
def link(server: Server) -> str:
    return told("add", "ada")


@pytest.fixture(scope="module")
def cookie(server: Server, link: str) -> str:
    return f"workbench-{server.port}={logins.session_of(link.partition('token=')[2])}"


@pytest.fixture(scope="module")
def browser(server: Server, link: str) -> Iterator[tuple[Page, Seen]]:
    with browser_page(server) as (page, seen):
        page.goto(link)
        yield page, seen


def test_nobody_gets_a_byte_without_a_login(server: Server, run: RunDir, cookie: str, intruder) -> None:
    """Through a proxy or not: what it says of the client counts for nothing."""
    paths = ("/", "/_stcore/health", f"/live/{run.id}/metrics", "/?token=guess")
    requests = [get(path, server.port, X_Forwarded_For="127.0.0.1") for path in paths]
    for user in (intruder, None):
        answers = ask(server.port, [*requests, socket(server.port, Origin=server.url)], as_user=user)
        assert [answer.status for answer in answers] == [401, 401, 401, 401, 403]
        assert not [answer for answer in answers if "streamlit" in answer.body.lower() or run.id in answer.body]
    for wrong in (f"http://localhost:{server.port}", f"https://127.0.0.1:{server.port}"):
        assert ask(server.port, [socket(server.port, Origin=wrong, Cookie=cookie)])[0].status == 403
    host = {"Host": f"localhost:{server.port}"}
    assert ask(server.port, [("GET", "/", {**get("/", server.port)[2], **host, "Cookie": cookie})])[0].status == 403


def test_a_member_reads_and_finds_nothing_to_launch_or_control(server: Server, run: RunDir, browser: tuple[Page, Seen]) -> None:
    page, seen = browser
    assert page.url == f"{server.url}/"
    for name in MEMBERS_PAGES:
        page.goto(f"{server.url}/{name}")
        expect(page.get_by_role("heading", level=2).first).to_be_visible()
        settled(page)
        for control in CONTROLS:
            assert page.get_by_role("button", name=control, exact=True).count() == 0, (name, control)
        navigation = page.get_by_test_id("stSidebarNav")
        assert [link for link in navigation.get_by_role("link").all_inner_texts() if link.strip().endswith(tuple(OWNERS_PAGES.values()))] == []
        expect(page.locator(".st-key-viewer")).to_contain_text("ada")
    page.goto(f"{server.url}/run?id={run.id}")
    expect(page.get_by_role("heading", name="ppo-demo")).to_be_visible()
    page.wait_for_function("""() => +document.querySelector('[data-chart="loss"]')?.dataset.last === 2""")
    assert page.get_by_role("tab", name="Controls").count() == 0
    for name, title in OWNERS_PAGES.items():
        page.goto(f"{server.url}/{name}?clone={run.id}")
        expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
        expect(page.get_by_text("takes the owner's own app")).to_be_visible()
        settled(page)
        assert page.locator("input, textarea").count() == 0
        assert page.get_by_role("button", name="Launch run").count() == 0
    assert run.status.state == State.RUNNING and not (run.path / "control.jsonl").exists()
    assert seen.errors == []


def test_a_removed_member_is_out_at_once(server: Server, run: RunDir, browser: tuple[Page, Seen], cookie: str) -> None:
    page, _ = browser
    assert [line.split()[0] for line in told("list").splitlines()[1:]] == ["ada"]
    assert ask(server.port, [get("/", server.port, Cookie=cookie), socket(server.port, Origin=server.url, Cookie=cookie)])[0].status == 200
    page.goto(f"{server.url}/rollouts?id={run.id}")
    expect(page.get_by_text("of 32 rollouts")).to_be_visible()
    told("remove", "ada")
    synthetic_rollouts.write(run, 3)
    expect(page.get_by_test_id("stConnectionStatus").or_(page.get_by_text("Connection error"))).to_be_visible()
    expect(page.get_by_text("of 32 rollouts")).to_be_visible()
    assert page.goto(f"{server.url}/rollouts?id={run.id}").status == 401
    expect(page.get_by_text("owner of this app gave you")).to_be_visible()
    answers = ask(server.port, [get("/", server.port, Cookie=cookie), socket(server.port, Origin=server.url, Cookie=cookie)])
    assert [answer.status for answer in answers] == [401, 403]
