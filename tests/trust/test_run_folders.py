"""A shared folder of runs, in which another user plants links, FIFOs, foreign files and runs of their own."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from typer.main import get_command

from tests.app.pages import open_page, words
from tests.rundir.damages import OLD
from tests.rundir.records import record
from tests.trust.intruder import Intruder
from workbench import api
from workbench.rundir import opening, rollouts, store
from workbench.rundir.events import EventWriter
from workbench.rundir.files import now_on, write_atomic
from workbench.rundir.opening import ReadOnly, Unreadable
from workbench.rundir.store import RunDir, State
from workbench.terminal.cli import app

COMMANDS = get_command(app)
SPEC = (OLD / "stopped" / "spec.yaml").read_text().replace("{ROOT}", "/nowhere")
SECRET = "the owner's own words\n"

pytestmark = pytest.mark.timeout(60)  # a FIFO that is opened blocks for ever


@pytest.fixture
def runs(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_RUNS", str(shared))
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A file of the owner's, which nothing below may change."""
    path = tmp_path / "own"
    path.write_text(SECRET)
    return path


@pytest.fixture
def open_run(runs: Path) -> RunDir:
    """A run of the owner's in whose folder others can write, as a careless chmod leaves it."""
    run = store.create(runs, "open", SPEC)
    run.update(state=State.STOPPED, attempt=1)
    for folder in (run.path, *(path for path in run.path.iterdir() if path.is_dir())):
        folder.chmod(0o777)
    return run


@pytest.fixture
def colleague(runs: Path, intruder: Intruder) -> RunDir:
    """Another user's run that everybody may read; its driver is dead."""
    folder = shutil.copytree(OLD / "stopped", runs / "20261126-000000-theirs-a4e7")
    (folder / "spec.yaml").write_text(SPEC)
    job = {"backend": "local", "id": "999999999", "host": os.uname().nodename, "started": 0.0}
    (folder / "status.json").write_text(json.dumps({"format": 1, "state": "running", "attempt": 1, "step": 2, "total_steps": 4, "job": job}))
    rollouts.write(RunDir(folder), 1, [record()])
    for path in (folder, *folder.rglob("*")):
        os.chown(path, intruder.uid, intruder.gid)
        path.chmod(0o755 if path.is_dir() else 0o644)
    return RunDir(folder)


def workbench(*arguments: str) -> str:
    done = CliRunner().invoke(COMMANDS, arguments, catch_exceptions=False, env={"COLUMNS": "400"})
    assert done.exit_code == 0, done.output
    return done.output


def listing() -> dict[str, dict[str, object]]:
    return {run["id"]: run for run in json.loads(workbench("list", "--json"))}


def everything(folder: Path) -> list[tuple[str, int, int, int]]:
    return sorted((str(path), *(getattr(path.lstat(), f"st_{name}") for name in ("size", "mtime_ns", "ino"))) for path in folder.rglob("*"))


def plant(intruder: Intruder, place: Path, target: Path | None) -> None:
    """Put a link to the target in the place of a file or folder; a FIFO without one."""
    make = f"os.symlink({str(target)!r}, path)" if target else "os.mkfifo(path)"
    done = intruder.python(f"import os, shutil\npath = {str(place)!r}\nif os.path.lexists(path): os.rename(path, path + '.old')\n{make}")
    assert done.returncode == 0, done.stderr


def _log(path: Path) -> None:
    with open(path, "ab", opener=opening.opener) as file:
        file.write(b"a line")


WRITES: dict[str, Callable[[RunDir], object]] = {
    ".status.lock": lambda run: run.update(message="new"),
    ".launch.lock": lambda run: run.begin_attempt("again"),
    ".reserve": lambda run: run.begin_attempt("again"),
    ".beat": lambda run: run.beat(),
    "control.jsonl": lambda run: run.request("stop"),
    "events/driver.jsonl": lambda run: EventWriter(run, "driver").write("warning", message="…"),
    "logs/driver.1.log": lambda run: _log(run.log_path("driver", 1)),
}
"""By file what opens it in place to write."""


@pytest.mark.parametrize("name", WRITES)
def test_a_planted_link_is_not_written_through(intruder: Intruder, open_run: RunDir, own: Path, name: str) -> None:
    plant(intruder, open_run.path / name, own)
    with pytest.raises(Unreadable, match=r"a symbolic link, not a file; not followed"):
        WRITES[name](open_run)
    assert own.read_text() == SECRET


@pytest.mark.parametrize("name", [".status.lock", "control.jsonl", "events/driver.jsonl"])
def test_a_planted_fifo_does_not_block_a_writer(intruder: Intruder, open_run: RunDir, name: str) -> None:
    plant(intruder, open_run.path / name, None)
    with pytest.raises(Unreadable, match="a FIFO, not a file"):
        WRITES[name](open_run)


def test_a_hard_link_to_the_owners_file_is_not_changed(open_run: RunDir, own: Path, runs: Path) -> None:
    """Made by root here: where the kernel does not protect hard links, any user can."""
    shutil.move(own, runs / "own")
    for name in ("control.jsonl", ".status.lock", ".reserve"):
        (open_run.path / name).unlink(missing_ok=True)
        os.link(runs / "own", open_run.path / name)
    for change in (lambda: open_run.request("stop"), lambda: open_run.update(message="new"), lambda: open_run.begin_attempt("again")):
        with pytest.raises(Unreadable, match="has another name elsewhere"):
            change()
    assert (runs / "own").read_text() == SECRET


def test_a_time_is_asked_for_without_touching_a_linked_file(intruder: Intruder, open_run: RunDir, own: Path) -> None:
    plant(intruder, open_run.path / ".now", own)
    before = own.stat().st_mtime_ns
    began = time.time()
    assert began - 1 <= now_on(open_run.path) <= time.time() + 1
    assert own.stat().st_mtime_ns == before


def test_what_replaces_a_file_replaces_the_link(intruder: Intruder, open_run: RunDir, own: Path) -> None:
    plant(intruder, open_run.path / "precision", own)
    write_atomic(open_run.path / "precision", "fp32")
    assert (open_run.path / "precision").read_text() == "fp32"
    assert (own.read_text(), own.stat().st_mode & 0o777) == (SECRET, 0o644)


@pytest.mark.parametrize("folder", ["events", "logs"])
def test_a_folder_that_became_a_link_is_not_entered(intruder: Intruder, open_run: RunDir, tmp_path: Path, folder: str) -> None:
    plant(intruder, open_run.path / folder, tmp_path)
    name = {"events": "events/driver.jsonl", "logs": "logs/driver.1.log"}[folder]
    with pytest.raises(Unreadable, match="a symbolic link, not a folder"):
        WRITES[name](open_run)
    assert list(tmp_path.iterdir()) == []
    assert f"{open_run.path / folder}: a symbolic link" in workbench("show", open_run.id)
    with pytest.raises(ValueError, match=f"{folder}: a symbolic link"):
        api.get(open_run.id).resume()


def test_the_intruders_files_in_the_owners_run_do_not_count(intruder: Intruder, open_run: RunDir) -> None:
    """A status that says how to launch, requests, a log and rollouts: named as another's, and nothing of them is taken."""
    path = open_run.path
    (path / "rollouts").mkdir(mode=0o777)
    (path / "rollouts").chmod(0o777)
    code = f"""
import os
for name in ("control.jsonl", "precision", "logs/actor-0.1.log", "rollouts/1.parquet"):
    place = os.path.join({str(path)!r}, name)
    with open(place, "w") as file: file.write("bf16")
    os.chmod(place, 0o644)
"""
    assert intruder.python(code).returncode == 0
    found = {problem.path.relative_to(path).as_posix(): problem.reason for problem in api.get(open_run.id).problems()}
    assert found.pop("rollouts/1.parquet")
    foreign = f"belongs to {intruder.name}, the run to root; not read"
    assert {name: found[name] for name in ("control.jsonl", "precision", "logs/actor-0.1.log")} == dict.fromkeys(
        ("control.jsonl", "precision", "logs/actor-0.1.log"), foreign
    )
    assert (rollouts.steps(open_run), foreign in open_run.log_tail("actor")) == ([], True)
    assert (
        intruder.python(
            f"import os\nos.rename({str(path / 'status.json')!r}, {str(path / 'x')!r})\nopen({str(path / 'status.json')!r}, 'w').write('{{}}')"
        ).returncode
        == 0
    )
    assert listing()[open_run.id]["state"] is None
    assert foreign in str(listing()[open_run.id]["message"])


SPOILT = """
import os, sys
runs, own = sys.argv[1:]
def run(name):
    os.mkdir(os.path.join(runs, name), 0o755)
    return lambda file: os.path.join(runs, name, file)
os.mkfifo(run("a-fifo")("status.json"), 0o644)
os.symlink(own, run("b-link")("status.json"))
os.symlink("/dev/zero", run("c-device")("status.json"))
open(run("d-empty")("status.json"), "w").close()
with open(run("e-huge")("status.json"), "wb") as file: file.truncate(1 << 40)
os.mkdir(run("f-folder")("status.json"), 0o755)
os.symlink(os.path.dirname(own), os.path.join(runs, "g-folder-link"))
with open(run("h-name\\x1b]0;x\\x07[bold]![x](http:x)`")("status.json"), "w") as file: file.write("7")
"""


def test_no_folder_of_the_intruders_hides_a_run(intruder: Intruder, open_run: RunDir, runs: Path, tmp_path: Path) -> None:
    own = tmp_path / "status.json"
    own.write_text(json.dumps({"state": "completed", "message": "secret"}))
    done = intruder.python(SPOILT, str(runs), str(own))
    assert done.returncode == 0, done.stderr
    found = listing()
    assert found[open_run.id]["state"] == "stopped"
    bad = {name[0]: run for name, run in found.items() if name != open_run.id}
    assert {run["state"] for run in bad.values()} == {None}
    for letter, cause in {
        "a": "a FIFO",
        "b": "a symbolic link",
        "c": "a symbolic link",
        "d": "empty",
        "e": "larger than 64 MiB",
        "f": "a folder, not a file",
        "g": "a symbolic link, not a folder",
        "h": "expected a JSON object",
    }.items():
        assert cause in str(bad[letter]["message"]), bad[letter]
    printed = workbench("list")
    assert open_run.id in printed and "\x1b" not in printed and "\\x1b]0;x\\x07[bold]" in printed
    page = open_page("runs")
    assert list(page.dataframe[0].value["name"]) == ["old stopped"]
    assert "a FIFO" in words(page).replace("\\", "")


def test_a_colleagues_run_is_shown_read_only(intruder: Intruder, colleague: RunDir, open_run: RunDir) -> None:
    """Its dead driver made every list fail: the end of the run was to be written, in a folder that is not ours."""
    before = everything(colleague.path)
    found = listing()
    assert (found[colleague.id]["state"], found[colleague.id]["owner"]) == ("running", intruder.name)
    assert found[open_run.id]["state"] == "stopped"
    run = api.get(colleague.id)
    shown = workbench("show", run.id)
    assert f"read-only: it belongs to {intruder.name}" in shown
    for change in (run.stop, run.pause, run.unpause, run.kill, run.resume, lambda: run.change(lr=0.1)):
        with pytest.raises(ReadOnly, match=f"is read-only: it belongs to {intruder.name}"):
            change()
    for write in WRITES.values():
        with pytest.raises(ReadOnly):
            write(run.dir)
    began = time.time()
    assert began - 1 <= now_on(run.dir.path) <= time.time() + 1
    assert api.cluster("local").allocations == ()
    page = open_page("runs")
    assert f"old stopped · {intruder.name}’s, read-only" in list(page.dataframe[0].value["name"])
    page = open_page("run", id=run.id)
    assert f"it belongs to {intruder.name}" in words(page).replace("\\", "")
    assert {button.label for button in page.button} & {"Stop", "Resume", "Kill now", "Pause"} == set()
    assert len(open_page("rollouts", id=run.id).dataframe[0].value) == 1
    open_page("compare", runs=f"{run.id},{open_run.id}")
    assert everything(colleague.path) == before


def test_links_in_a_colleagues_run_are_not_followed(intruder: Intruder, colleague: RunDir, own: Path) -> None:
    """Logs, settings, events and rollouts that are links to the reader's own files: none is read."""
    for name in ("logs/driver.1.log", "spec.yaml", "events/actor.jsonl", "rollouts/1.parquet"):
        (colleague.path / name).unlink()
        (colleague.path / name).symlink_to(own)
        os.lchown(colleague.path / name, intruder.uid, intruder.gid)
    assert all("a symbolic link" in told for told in json.loads(workbench("show", colleague.id, "--json"))["problems"] if "parquet" not in told)
    assert len(api.get(colleague.id).problems()) == 4
    assert SECRET.strip() not in workbench("show", colleague.id)
    with pytest.raises(Unreadable, match="a symbolic link"):
        CliRunner().invoke(COMMANDS, ["logs", colleague.id, "--role", "driver"], catch_exceptions=False)
    assert (rollouts.steps(colleague), SECRET.strip() in colleague.log_tail("driver")) == ([], False)


def test_what_cannot_be_written_is_shown_read_only(open_run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only mount of the owner's own runs, as of a snapshot."""
    open_run.update(state=State.RUNNING, job={"backend": "local", "id": "999999999", "host": os.uname().nodename, "started": 0.0})
    place = tmp_path / "snapshot"
    place.mkdir()
    subprocess.run(["mount", "--bind", open_run.path.parent, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        monkeypatch.setenv("WORKBENCH_RUNS", str(place))
        assert listing()[open_run.id]["read_only"] == "its file system is mounted read-only"
        with pytest.raises(ReadOnly, match="mounted read-only"):
            api.get(open_run.id).stop()
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_new_run_is_closed_to_others(intruder: Intruder, runs: Path) -> None:
    run = store.create(runs, "mine", "{}")
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    assert not intruder.reads(run.path)
    assert not intruder.reads(run.path / "status.json")
