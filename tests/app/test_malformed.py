"""Pages over damaged run folders: each says what cannot be read, and raises nothing (`open_page` looks at that)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.app.pages import on_tab, open_page, words
from tests.rundir.damages import CASES, GOOD, NAMED, damage
from workbench.rundir.store import RunDir

PAGES = [(name, kind) for name, kind in CASES if kind in ("random", "list") and NAMED[name]]


@pytest.fixture
def runs(tmp_path: Path, sound_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    shutil.copytree(sound_run, tmp_path / GOOD)
    return tmp_path


def test_lists_of_two_hundred_damaged_runs(runs: Path, sound_run: Path) -> None:
    """Each damage of each file in a run of its own: the list has all of them, and so has the comparison's choice."""
    damaged = {}
    for number, (name, kind) in enumerate(CASES):
        run = shutil.copytree(sound_run, runs / f"20261126-000000-bad-{number:04d}")
        damaged[run.name] = damage(run, name, kind)
    page = open_page("runs")
    unreadable = {run_id for run_id, path in damaged.items() if path.name == "status.json"}
    table, told = page.dataframe[0].value, words(page).replace("\\", "")
    assert len(table) == len(CASES) + 1 - len(unreadable)
    assert sum(name.endswith("settings unreadable") for name in table["name"]) == len(
        [case for case in CASES if case[0] == "spec.yaml" and case[1] != "half"]
    )
    assert all(str(damaged[run_id]) in told or f"{run_id} was made by a newer" in told for run_id in unreadable)
    page = open_page("compare", runs=f"{GOOD},{min(unreadable)}")
    assert page.multiselect[0].value == [GOOD]
    assert len(page.multiselect[0].options) == len(table)
    assert str(damaged[min(unreadable)]) in page.error[0].value.replace("\\", "")


@pytest.mark.parametrize(("name", "kind"), PAGES)
def test_a_damaged_run_opens_and_says_what_cannot_be_read(runs: Path, sound_run: Path, name: str, kind: str) -> None:
    run = RunDir(shutil.copytree(sound_run, runs / "20261126-000000-bad-a4e7"))
    path = damage(run.path, name, kind)
    page = open_page("run", id=run.id)
    assert (str(path) in words(page).replace("\\", "")) == (kind in NAMED[name])
    if name != "status.json" and "rollouts" in name:
        assert path.name in words(open_page("rollouts", id=run.id))


def test_what_others_wrote_is_no_markup_and_hides_nothing(runs: Path) -> None:
    """An event's message, a log's lines and the address itself with Markdown and characters that turn the direction of writing."""
    run, evil = RunDir(runs / GOOD), "![x](http://evil.example/x.png) \x1b[2J \u202egnp"
    run.events_path("driver").write_text(json.dumps({"seq": 0, "time": 1.0, "kind": "warning", "message": evil}) + "\n")
    (run.logs / "actor-0.1.log").write_text(evil)
    page = open_page("run", id=run.id)
    assert r"\!\[x\]\(http" in page.warning[0].value
    assert "\x1b" not in words(page) and "\u202e" not in words(page)
    assert r"\x1b[2J \u202egnp" in words(on_tab(page, run, "Log"))
    assert "`` `![x](http://evil.example/x.png) ``" in open_page("run", id="`![x](http://evil.example/x.png)").error[0].value
