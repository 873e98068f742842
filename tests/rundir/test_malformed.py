"""Every file of a run's folder, damaged in every way: the run is listed with the file and the cause, the others as they are, and nothing raises."""

from __future__ import annotations

import base64
import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner
from typer.main import get_command

from tests.rundir.test_rollouts import record
from workbench import api
from workbench.jobs import launch
from workbench.rundir import answers, rollouts, store
from workbench.rundir.beats import Beat
from workbench.rundir.store import RunDir
from workbench.serve import health
from workbench.serve.discovery import Address
from workbench.terminal.cli import app as cli
from workbench.views import feed

OLD = Path(__file__).with_name("fixtures") / "a4e7fa1"
BAD, GOOD = "20261126-000000-bad-a4e7", "20261126-000000-good-a4e7"
SHORT_S = 20
"""The time limit of one case: a file that blocks is a failure."""


def _junk(kind: str, content: bytes, suffix: str) -> bytes | None:
    """The damaged content; None for no file."""
    noise = random.Random(len(content))
    end = b"\n" if suffix == ".jsonl" else b""
    newer = {**_object(content), "format": store.FORMAT + 1, "kind": 7, "time": "soon"}
    return {
        "empty": b"",
        "half": content[: len(content) * 2 // 5],
        "zeroed": bytes(len(content)),
        "random": b"\n".join(noise.randbytes(60) for _ in range(8)) + end,
        "missing": None,
        "newer": json.dumps(newer).encode() + end,
        "list": b"[]" + end,
        "number": b"7" + end,
        "deep": b"[" * 100_000 + end,
        "huge": b'{"time": 1e999, "step": ' + b"9" * 5000 + b"}" + end,
    }[kind]


def _object(content: bytes) -> dict[str, object]:
    try:
        found = json.loads(content.splitlines()[0])
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


KINDS = ("empty", "half", "zeroed", "random", "missing", "newer", "list", "number", "deep", "huge")
MUST = set(KINDS)
LINES = MUST - {"empty", "half", "zeroed", "missing"}
"""What readers of lines pass over: nothing, and a last line that is torn or was never written."""
NAMED: dict[str, set[str]] = {
    "status.json": MUST,
    "spec.yaml": MUST,
    "precision": MUST - {"missing"},
    "events/actor.jsonl": LINES,
    "events/driver.jsonl": LINES,
    "control.jsonl": LINES,
    "beats/actor-0.json": MUST - {"missing"},
    "rollouts/1.parquet": MUST - {"missing"},
    "answers.jsonl": MUST - {"missing", "newer"},
    "answers.parquet": MUST - {"missing"},
    "checkpoints/2/COMPLETE": MUST - {"missing"},
    "checkpoints/2/meta.json": MUST - {"newer"},
    "endpoints/critic.json": MUST - {"missing"},
    "endpoints/critic.key": set(),
    "health/critic.json": MUST - {"missing", "newer"},
    "logs/actor-0.1.log": set(),
    "logs/driver.1.log": set(),
    ".beat": set(),
    "dask/dask.crt": MUST,
    "dask/dask.key": MUST,
}
"""By file the damages that are named. The others harm nobody: no such file is needed, or any bytes are a log."""
NEEDED = (
    "status.json",
    "spec.yaml",
    "precision",
    "events/actor.jsonl",
    "events/driver.jsonl",
    "checkpoints/2/COMPLETE",
    "checkpoints/2/meta.json",
    "dask/",
)
CASES = [(name, kind) for name in NAMED for kind in KINDS]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped run with every file that a run can have."""
    run = RunDir(tmp_path_factory.mktemp("sound") / GOOD)
    shutil.copytree(OLD / "stopped", run.path)
    for path in (run.path / "spec.yaml", run.path / "checkpoints" / "2" / "meta.json"):
        path.write_text(path.read_text().replace("{ROOT}", "/nowhere"))
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    beat = Beat("actor", 0, 1, "host", 1, 7, 1.0, 2, "forward", 0.5, "", "", 3, 0.1)
    said = {"role": "critic", "host": "host", "pid": 1, "processes": 1, "attempt": 1, "doing": "", "endpoints": {}}
    files = {
        "events/driver.jsonl": json.dumps({"seq": 0, "time": time.time(), "kind": "warning", "message": "a warning"}) + "\n",
        "beats/actor-0.json": json.dumps(asdict(beat)),
        "endpoints/critic.json": json.dumps(asdict(Address("unix:/nobody", "host", 1, 0.5, "critic.key"))),
        "endpoints/critic.key": base64.b64encode(bytes(32)).decode(),
        "health/critic.json": json.dumps(said),
        "dask/dask.crt": pem,
        "dask/dask.key": pem,
        ".beat": "",
    }
    for name, text in files.items():
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text(text)
    rollouts.write(run, 1, [record() for _ in range(4)])
    answers.write(run, [answers.Asked([{"role": "user", "content": "?"}], {})] * 2, 2, 2)
    return run.path


@pytest.fixture
def runs(tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two copies of the run, one of which is going to be damaged; what would be launched is only written down."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    monkeypatch.setattr(launch, "launch", lambda run, task: launched.append(run.id))
    launched.clear()
    for name in (BAD, GOOD):
        shutil.copytree(sound, tmp_path / name)
    return tmp_path


launched: list[str] = []


def damage(run: Path, name: str, kind: str) -> Path:
    path = run / name
    content = _junk(kind, path.read_bytes(), path.suffix)
    path.chmod(0o600)
    path.unlink() if content is None else path.write_bytes(content)
    return path


COMMANDS = get_command(cli)


def workbench(*arguments: str) -> tuple[int, str]:
    """The exit code and all that was printed; as `main` does, of what is refused only the message."""
    try:
        done = CliRunner().invoke(COMMANDS, arguments, catch_exceptions=False, env={"COLUMNS": "400"})
    except (ValueError, OSError) as error:
        return 2, str(error)
    return done.exit_code, done.output


def test_the_sound_run_has_no_problem(runs: Path) -> None:
    assert api.get(GOOD).problems() == []
    assert len(CASES) >= 137


@pytest.mark.timeout(SHORT_S)
@pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{name}-{kind}" for name, kind in CASES])
def test_a_damaged_file_is_named_and_hides_no_run(runs: Path, name: str, kind: str) -> None:
    path = damage(runs / BAD, name, kind)
    named, without_status = kind in NAMED[name], name == "status.json"

    listed = {run["id"]: run for run in json.loads(workbench("list", "--json")[1])}
    assert listed.keys() == {BAD, GOOD} == {run.id for run in api.runs()}
    assert (listed[GOOD]["state"], listed[BAD]["state"]) == ("stopped", None if without_status else "stopped")
    table = workbench("list")[1]
    assert BAD in table and GOOD in table

    code, shown = workbench("show", BAD)
    assert code == (2 if without_status else 0)
    found = api.get(BAD).problems()
    assert [problem.path for problem in found] == ([path] if named else []), found
    if named:
        place = "made by a newer version" if without_status and kind == "newer" else str(path)
        assert place in shown and (not without_status or place in listed[BAD]["message"] or kind == "newer")

    code, told = workbench("resume", BAD, "--detach")
    if named and name.startswith(NEEDED):
        assert code == 2 and launched == []
        assert str(path) in told or "made by a newer version" in told
    else:
        assert (code, launched) == (0, [BAD]), told

    for look in LOOKS:
        look(RunDir(runs / BAD))


def _history(run: RunDir) -> None:
    with feed.history(run) as history:
        assert history.steps == sorted(history.steps)


LOOKS: tuple[Callable[[RunDir], object], ...] = (
    _history,
    lambda run: feed.glance(run, 4),
    rollouts.summary,
    rollouts.steps,
    lambda run: rollouts.page(run, rollouts.Query()),
    lambda run: health.reports(run.path, ["critic"], ended=True),
    lambda run: [run.log_tail(role) for role in ("actor", "driver")],
)
"""What pages ask for; none of it may raise."""
