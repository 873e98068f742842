"""Every file of a run's folder, damaged in every way: the run is listed with the file and the cause, the others as they are, and nothing raises."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from typer.main import get_command

from tests.rundir.damages import BAD, CASES, GOOD, NAMED, damage
from workbench import api
from workbench.jobs import launch
from workbench.rundir import rollouts
from workbench.rundir.store import RunDir
from workbench.serve import health
from workbench.terminal.cli import app as cli
from workbench.views import feed

SHORT_S = 20
"""The time limit of one case: a file that blocks is a failure."""


NEEDED = (
    "status.json",
    "spec.yaml",
    "precision",
    "commit",
    "weights",
    "events/actor.jsonl",
    "events/driver.jsonl",
    "checkpoints/2/COMPLETE",
    "checkpoints/2/meta.json",
    "dask/",
)
"""Without these no run goes on."""


@pytest.fixture
def runs(tmp_path: Path, sound_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two copies of the run, one of which is going to be damaged; what would be launched is only written down."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    monkeypatch.setattr(launch, "launch", lambda run, task: launched.append(run.id))
    launched.clear()
    for name in (BAD, GOOD):
        shutil.copytree(sound_run, tmp_path / name)
    return tmp_path


launched: list[str] = []


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
