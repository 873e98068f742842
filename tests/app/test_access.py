"""How the app is opened, decided at its start."""

import importlib
import sys

import pytest
from streamlit.runtime import Runtime
from ui import access, door

from tests.app.conftest import APP
from workbench.machines.logins import AppLogin


@pytest.mark.parametrize("address", access.LOOPBACK)
def test_the_owners_app_is_on_a_loopback_address(address):
    assert access._decided("owner", "", address).mode == "owner"


@pytest.mark.parametrize("address", [None, "", "0.0.0.0", "::", "192.168.1.5", "wb.example.org", "unix:///tmp/app"])
def test_the_owners_app_does_not_start_where_others_reach_it(address):
    with pytest.raises(ValueError, match="WORKBENCH_APP=team"):
        access._decided("owner", "", address)


def test_a_team_is_served_at_named_origins():
    found = access._decided("team", "https://WB.example.org:443/, https://10.0.0.5:8443", "0.0.0.0")
    assert found.origins == {"https://wb.example.org", "https://10.0.0.5:8443"}
    assert access.cookie_name("https://wb.example.org") == "workbench-443"


@pytest.mark.parametrize(
    ("mode", "origins", "said"),
    [
        ("team", "", "WORKBENCH_ORIGIN=https"),
        ("team", "wb.example.org", "not an origin"),
        ("team", "https://wb.example.org/app", "not an origin"),
        ("team", "https://a@wb.example.org", "not an origin"),
        ("team", "https://wb.example.org http://wb.example.org", "all http or all https"),
        ("Team", "https://wb.example.org", "owner or team"),
    ],
)
def test_what_is_no_mode_or_origin(mode, origins, said):
    with pytest.raises(ValueError, match=said):
        access._decided(mode, origins, "127.0.0.1")


def test_nobody_has_an_empty_session():
    assert access.Access("owner").who("") is None
    assert access.Access("owner", session="a").who("") is None
    assert access.Access("owner", session="a").who("ä") is None
    assert access.Access("owner", session="a").who("a") == "owner"


def test_a_server_that_was_started_past_the_gate_draws_no_page(monkeypatch):
    """`streamlit run app/main.py` serves the pages without the gate; each imports `ui`."""
    monkeypatch.setattr(Runtime, "_instance", object.__new__(Runtime))
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "ui")
            with pytest.raises(RuntimeError, match="start it with: workbench app"):
                importlib.import_module("ui")
    assert all("from ui import" in path.read_text() for path in [APP / "main.py", *(APP / "pages").glob("*.py")])


@pytest.mark.parametrize(("mode", "printed"), [(0o600, True), (0o644, False), (0o640, False)])
def test_the_link_is_printed_where_only_the_owner_reads_it(tmp_path, monkeypatch, mode, printed):
    login = AppLogin(8501, "http://127.0.0.1:8501", "secret", 1, 1.0)
    log = tmp_path / "log"
    log.touch(mode=mode)
    log.chmod(mode)
    with log.open("w") as file:
        monkeypatch.setattr("sys.stdout", file)
        door._announce(access.Access("owner"), login)
    assert ("http://127.0.0.1:8501/?token=secret" in log.read_text()) == printed
    assert "workbench app-url" in log.read_text()


def test_a_desktops_browser_is_given_a_file_and_no_token(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setenv("WORKBENCH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DISPLAY", ":0")
    for name in ("CI", "HEADLESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("webbrowser.open", opened.append)
    login = AppLogin(8501, "http://127.0.0.1:8501", "secret", 1, 1.0)
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert door._open_browser(login) is None and opened == []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    page = door._open_browser(login)
    assert page is not None and opened == [page.as_uri()]
    assert "secret" not in opened[0] and "token=secret" in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
