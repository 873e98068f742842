"""Logins of the app: files that are the owner's alone, and what becomes of them."""

import json

import pytest

from workbench.machines import logins


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_an_app_keeps_its_token_over_a_restart(state):
    first = logins.register_app(8501, "http://127.0.0.1:8501", with_token=True)
    assert logins.running_apps() == [first]
    assert first.url == f"http://127.0.0.1:8501/?token={first.token}"
    assert len(first.token) >= 40
    assert logins.register_app(8501, "http://127.0.0.1:8501", with_token=True).token == first.token
    assert logins.register_app(8502, "http://127.0.0.1:8502", with_token=True).token != first.token
    assert logins.register_app(8503, "https://wb.example.org", with_token=False).url == "https://wb.example.org"
    assert state.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in state.iterdir()} == {0o600}


def test_an_app_whose_process_is_another_is_not_running(state):
    logins.register_app(8501, "http://127.0.0.1:8501", with_token=True)
    (path,) = state.glob("app-*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": 1.0}))
    assert logins.running_apps() == []


def test_a_members_token_is_kept_nowhere(state):
    token = logins.add_member("ada")
    session = logins.session_of(token)
    kept = (state / logins.TEAM).read_text()
    assert token not in kept and session not in kept
    assert [(member.name, member.digest) for member in logins.members()] == [("ada", logins.digest_of(session))]
    with pytest.raises(ValueError, match="in the team already"):
        logins.add_member("ada")
    before = logins.team_version()
    logins.remove_member("ada")
    assert logins.members() == [] and logins.team_version() != before
    with pytest.raises(ValueError, match="nobody in the team"):
        logins.remove_member("ada")


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a\nb", "[red]", "x" * 65])
def test_a_name_that_is_none(name):
    with pytest.raises(ValueError, match="not a member's name"):
        logins.add_member(name)


def test_what_others_can_reach_is_refused_with_the_way(state, tmp_path):
    logins.add_member("ada")
    (state / logins.TEAM).chmod(0o644)
    with pytest.raises(PermissionError, match="chmod go="):
        logins.members()
    (state / logins.TEAM).unlink()
    (tmp_path / "elsewhere").write_text("{}")
    (state / logins.TEAM).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        logins.members()
    state.chmod(0o755)
    with pytest.raises(PermissionError, match="chmod go="):
        logins.state_folder()
    state.rename(tmp_path / "moved")
    state.symlink_to(tmp_path / "moved")
    with pytest.raises(PermissionError, match="is a link"):
        logins.state_folder()
