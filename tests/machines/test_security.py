"""`workbench doctor --security`: what it finds of open sockets and folders, what is closed, and that it says so with the way out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from workbench.machines import security
from workbench.machines.security import Exposure
from workbench.terminal.cli import app

LISTEN = """
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0))]
for path in sys.argv[3:]:
    sockets.append(socket.socket(socket.AF_UNIX))
    sockets[-1].bind(path)
    sockets[-1].listen()
print(sockets[0].getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "runs"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


def run_folder(runs: Path, name: str, mode: int) -> Path:
    path = runs / name
    (path / "endpoints").mkdir(parents=True)
    (path / "status.json").write_text("{}")
    path.chmod(mode)
    return path


def about(found: list[Exposure], text: str) -> Exposure:
    (exposure,) = [exposure for exposure in found if text in exposure.what]
    return exposure


def test_what_listens_is_named_with_what_others_could_do(runs: Path, tmp_path: Path) -> None:
    """A process that calls itself a rank of a run, with a port, a socket in a closed folder and one in an open folder."""
    run = run_folder(runs, "20261126-101502-ppo-3f9a", 0o700)
    closed, opened = tmp_path / "closed", Path(f"/tmp/open-{os.getpid()}")
    closed.mkdir(mode=0o700)
    opened.mkdir(mode=0o755)
    command = [sys.executable, "-c", LISTEN, "workbench.processes.worker", str(run), str(closed / "a"), str(opened / "b")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = process.stdout.readline().strip()
        found = security.examine(runs, tmp_path / "cache")
        process.communicate("")
    shutil.rmtree(opened)
    gang = about(found, f"127.0.0.1:{port}, a rank of {run.name} (process {process.pid})")
    assert gang.level == "warning" and gang.others.startswith("Users of this machine could connect to gloo or NCCL")
    assert about(found, str(closed)).level == "ok"
    assert (about(found, str(opened)).level, about(found, str(opened)).remedy) == ("error", f"chmod 700 {opened}")
    assert [exposure.level for exposure in found] == sorted((exposure.level for exposure in found), key=["error", "warning", "ok"].index)


@pytest.mark.parametrize(("mode", "level", "others"), [(0o700, None, ""), (0o755, "warning", "can read this run"), (0o770, "error", "can change")])
def test_a_run_that_others_reach_is_named(runs: Path, tmp_path: Path, mode: int, level: str | None, others: str) -> None:
    run = run_folder(runs, "20261126-101502-dpo-0000", mode)
    found = [exposure for exposure in security.examine(runs, tmp_path) if exposure.what == str(run)]
    assert [(exposure.level, others in exposure.others, str(run) in exposure.remedy) for exposure in found] == (
        [(level, True, True)] if level else []
    )


def test_a_key_that_others_can_read_is_named(runs: Path, tmp_path: Path) -> None:
    key = run_folder(runs, "20261126-101502-ppo-0000", 0o700) / "endpoints" / "critic.key"
    key.write_text("secret")
    key.chmod(0o640)
    assert about(security.examine(runs, tmp_path), str(key)).level == "error"
    key.chmod(0o600)
    assert not [exposure for exposure in security.examine(runs, tmp_path) if str(key) in exposure.what]


@pytest.mark.parametrize(("mode", "level"), [(0o700, "ok"), (0o755, "ok"), (0o1777, "warning"), (0o777, "error")])
def test_the_folder_of_runs(runs: Path, tmp_path: Path, mode: int, level: str) -> None:
    runs.chmod(mode)
    assert about(security.examine(runs, tmp_path), f"{runs}, the runs").level == level


def test_the_command_fails_where_something_is_open_and_prints_it_as_it_is(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_RUNS", str(runs))
    before = json.loads(CliRunner().invoke(app, ["doctor", "--security", "--json"]).stdout)
    assert not [each for each in before if str(runs) in each["what"] and each["level"] != "ok"]
    odd = run_folder(runs, "[bold]20261126", 0o777)
    result = CliRunner().invoke(app, ["doctor", "--security", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)[0]["what"] == str(odd)
    console = Console(width=300, record=True)
    security.render([Exposure(**each) for each in json.loads(result.stdout)], console)
    text = console.export_text()
    assert str(odd) in text and f"{sum(each['level'] == 'error' for each in json.loads(result.stdout))} to close now" in text
