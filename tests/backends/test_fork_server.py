"""Processes forked from one that has imported: they are what a process started anew would be, and they end with whoever asked for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import ended, until
from workbench.backends import fork_server, forking, starting
from workbench.backends.forking import Connection, Unavailable, serving

MODULE = """
import atexit, json, os, signal, sys, threading, time
from pathlib import Path

IMPORTED_IN = os.getpid()

def main():
    what, folder = sys.argv[1], Path(sys.argv[2])
    own = {"argv": sys.argv[1:], "mine": os.environ.get("MINE"), "threads": os.environ["OMP_NUM_THREADS"], "session": os.getsid(0), "parent": os.getppid(), "umask": os.umask(0)}
    (folder / "told").write_text(json.dumps({**own, "imported": IMPORTED_IN, "pid": os.getpid()}))
    print("said", what, flush=True)
    match what:
        case "code":
            return 7
        case "exit":
            sys.exit("a message")
        case "error":
            raise ValueError("wrong")
        case "late":
            atexit.register(lambda: print("at exit", flush=True))
            threading.Thread(target=lambda: (time.sleep(0.1), print("thread", flush=True))).start()
            return 0
        case "forever":
            signal.pause()
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "forked_module.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parents[2])]))
        with serving(["forked_module"]) as path:
            yield path


@pytest.fixture
def ask(served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    connection = Connection(served)
    yield connection
    connection.close()


def fork(ask: Connection, what: str, folder: Path, served: str, detached: bool = False, **more: str) -> forking.Forked:
    environment = {**_environment(served), "OMP_NUM_THREADS": "3", "MINE": "yes", **more}
    return ask.fork((sys.executable, "-m", "forked_module", what, str(folder)), environment, folder / "log", detached)


def _environment(served: str) -> dict[str, str]:
    """The server's, as psutil reads it: its PYTHONPATH is not this process's."""
    found = next(p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-1:] == ["forked_module"] and p.ppid() == os.getpid())
    return found.environ()


def told(folder: Path) -> dict[str, object]:
    return until(lambda: (folder / "told").is_file() and json.loads((folder / "told").read_text() or "null"), what="the process begins")


def test_it_is_what_a_process_started_anew_would_be(ask: Connection, served: str, tmp_path: Path) -> None:
    before = os.umask(0o057)
    process = fork(ask, "code", tmp_path, served)
    assert process.wait() == process.poll() == 7
    os.umask(before)
    said = told(tmp_path)
    assert said["umask"] == 0o057
    assert said["argv"] == ["code", str(tmp_path)] and said["mine"] == "yes" and said["threads"] == "3"
    assert said["pid"] == process.pid == said["session"], "it leads a session of its own"
    assert said["imported"] == said["parent"], "the server has imported, the process has not"
    assert (tmp_path / "log").read_text() == "said code\n" and (tmp_path / "log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("what", "code", "last"), [("exit", 1, "a message"), ("error", 1, "ValueError: wrong"), ("late", 0, "at exit")])
def test_how_it_ends(ask: Connection, served: str, tmp_path: Path, what: str, code: int, last: str) -> None:
    """As Python does: a message, a traceback, threads that are waited for, then what was registered for the end."""
    assert fork(ask, what, tmp_path, served).wait() == code
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[-1] == last and ("thread" in lines) == (what == "late")


def test_ps_shows_it_as_itself(ask: Connection, served: str, tmp_path: Path) -> None:
    process = psutil.Process(fork(ask, "forever", tmp_path, served, RANK="3").pid)
    told(tmp_path)
    assert process.cmdline() == [sys.executable, "-m", "forked_module", "forever", str(tmp_path)]
    assert (process.environ()["RANK"], process.environ()["MINE"]) == ("3", "yes")


def test_a_signal_is_its_code(ask: Connection, served: str, tmp_path: Path) -> None:
    process = fork(ask, "forever", tmp_path, served)
    told(tmp_path)
    starting.end_all([process])
    assert process.returncode == -signal.SIGTERM


def test_it_ends_with_the_connection_and_not_with_anothers(served: str, ask: Connection, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
    other = Connection(served)
    ended, kept = psutil.Process(fork(other, "forever", theirs, served).pid), fork(ask, "forever", mine, served)
    assert told(theirs) and told(mine)
    other.close()
    until(lambda: not ended.is_running(), what="the process ends with its owner's connection")
    assert kept.poll() is None


def test_a_detached_one_has_no_owner(served: str, tmp_path: Path) -> None:
    connection = Connection(served)
    process = psutil.Process(fork(connection, "forever", tmp_path, served, detached=True).pid)
    connection.close()
    said = told(tmp_path)
    assert process.is_running() and said["parent"] != said["imported"]
    process.kill()


def test_what_reads_another_environment_at_import_is_refused(ask: Connection, served: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="HF_HOME differ from what the fork server was started with"):
        fork(ask, "code", tmp_path, served, HF_HOME="/elsewhere")
    assert fork(ask, "code", tmp_path, served).wait() == 7, "the server goes on"


def test_another_mount_namespace_is_refused(served: str, tmp_path: Path) -> None:
    """A process there would open other files under the same names."""
    words = [sys.executable, "-c", NAMESPACE.format(path=served, folder=tmp_path)]
    done = subprocess.run(["unshare", "-rm", *words], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout == "the fork server lives in other namespaces (mounts, network, users)\n"


NAMESPACE = """
import os, sys
from pathlib import Path
from workbench.backends import forking
try:
    forking.Connection("{path}").fork((sys.executable, "-m", "forked_module", "code", "{folder}"), dict(os.environ), Path("{folder}/log"))
except forking.Unavailable as error:
    print(error)
"""

OWNER = """
import sys, time
from pathlib import Path
from workbench.backends import forking
with forking.serving(["{module}"]) as path:
    connection = forking.Connection(path)
    try:
        import os
        forked = connection.fork((sys.executable, "-m", "forked_module", "forever", "{folder}"), {{**os.environ, "OMP_NUM_THREADS": "1"}}, Path("{folder}/log"))
        print(forked.pid, flush=True)
        time.sleep(600)
    except forking.Unavailable as error:
        print("unavailable:", error, flush=True)
"""


def owner(folder: Path, extra: str = "", module: str = "forked_module") -> subprocess.Popen[str]:
    (folder / "forked_module.py").write_text(MODULE + extra)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parents[2])])}
    words = [sys.executable, "-c", OWNER.format(folder=folder, module=module)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("killed", ["owner", "server"])
def test_kill_minus_nine_of_the_owner_or_the_server_takes_all_along(tmp_path: Path, killed: str) -> None:
    with owner(tmp_path) as process:
        rank = psutil.Process(int(line(process)))
        server = rank.parent()
        assert server is not None and told(tmp_path)
        (process if killed == "owner" else server).kill()
        until(lambda: not rank.is_running(), what="the rank ends")
        until(lambda: ended(server), what="the server ends")
        process.kill()


def test_a_module_that_starts_a_thread_is_refused_with_the_reason(tmp_path: Path) -> None:
    with owner(tmp_path, "\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n") as process:
        assert line(process) == "unavailable: the fork server has 2 threads: a module starts some when it is imported\n"
        process.kill()


def test_a_module_that_cannot_be_imported_ends_the_server(tmp_path: Path) -> None:
    with owner(tmp_path, module="no_such_module") as process:
        assert line(process) == "unavailable: the fork server ended\n"
        process.kill()


def test_a_rank_is_started_anew_where_no_server_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(forking.SOCKET, str(tmp_path / "nobody"))
    command = (sys.executable, "-c", "import os; print(os.environ['MINE'])")
    with starting.Starter("actor", command, ("json",)) as start:
        assert start({**os.environ, "MINE": "yes"}, tmp_path / "log").wait() == 0
    assert (tmp_path / "log").read_text() == "yes\n"
    assert "the actor ranks import for themselves: no fork server at" in capfd.readouterr().out


def test_code_that_was_edited_after_its_import_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fork_server.changed() == ""
    monkeypatch.setattr(fork_server, "_imported_at", 0.0)
    assert fork_server.changed().startswith(str(Path(fork_server.__file__).parents[1]))
