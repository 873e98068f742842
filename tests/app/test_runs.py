"""The Runs page: what it lists, and what its buttons do."""

import json
import time

import pandas as pd
import pytest

from tests.app import synthetic
from tests.app.pages import by_label, settled, words
from workbench import api
from workbench.rundir import listing
from workbench.rundir.store import State
from workbench.views import text


def test_empty_tells_a_newcomer_what_to_do(app):
    page = app("runs")
    assert "No runs yet" in words(page)
    assert "workbench run experiment=dpo_demo" in words(page)
    assert not page.dataframe


def test_lists_every_run_newest_first(app, runs):
    synthetic.gallery(runs)
    table = app("runs").dataframe[0].value
    by_name = table.set_index("name")
    assert list(table["name"]) == [api.get(run.id).spec.name for run in listing.list_runs(runs)]
    assert by_name.loc["dpo-demo", "state"] == ["Running"]
    assert by_name.loc["dpo-demo", "progress"] == pytest.approx(37)
    assert by_name.loc["dpo-demo", "left"] == pd.Timedelta(seconds=round(252 * synthetic.PACE_S))
    assert by_name.loc["dpo-demo", "last"] == text.number(synthetic.step_metrics(148, 1)["loss"])
    assert by_name.loc["dpo-lr-too-high", "last"] == "nan"
    assert len(by_name.loc["dpo-demo", "curve"]) > 30
    assert ":material/stop_circle: Stop" in by_name.loc["dpo-demo", "actions"]
    assert ":material/resume: Resume" in by_name.loc["dpo-lr-too-high", "actions"]
    assert len(by_name.loc["dpo-beta-03", "actions"]) == 2


def test_the_selection_moves_with_its_runs(app, runs):
    """A run that is launched meanwhile is the newest, and every other one has another place."""
    for name in ("one", "two"):
        synthetic.make(runs, name=name, steps=3)
    page = app("runs")
    before = list(page.session_state["runs-shown"])
    page.session_state["runs-table"] = {"selection": {"rows": [0]}}
    settled(page.run())
    synthetic.make(runs, name="three", steps=3).path.rename(runs / "99990101-000000-three-0000")
    settled(page.run())
    shown = page.session_state["runs-shown"]
    assert shown == ["99990101-000000-three-0000", *before]
    assert [shown[row] for row in page.session_state["runs-table"]["selection"]["rows"]] == [before[0]]
    page.text_input(key="runs-search").set_value("three").run()
    assert page.session_state["runs-table"]["selection"]["rows"] == []


def test_times_are_sorted_as_times_and_names_are_shown_whole(app, runs):
    name = "a-name-that-needs-more-than-130-pixels"
    synthetic.make(runs, name, 3, age_s=90_000)
    synthetic.make(runs, "short", 3, state=State.KILLED, message="killed")
    page = app("runs")
    table, columns = page.dataframe[0].value, json.loads(page.dataframe[0].proto.columns)
    assert [str(table[column].dtype)[:10] for column in ("started", "time", "left")] == ["datetime64", "timedelta6", "timedelta6"]
    assert columns["name"]["width"] > 6 * len(name)
    assert table.set_index("name").loc["short", "state"] == ["Killed"]
    page.session_state["runs-state"] = ["Stopped"]
    assert "No run matches" in words(settled(page.run()))


def test_search_and_filter(app, runs):
    synthetic.gallery(runs)
    page = app("runs")
    by_label(page.text_input, "Search").set_value("ipo stop").run()
    assert "No run matches" in words(settled(page))
    by_label(page.text_input, "Search").set_value("IPO").run()
    assert list(settled(page).dataframe[0].value["name"]) == ["ipo-long"]
    by_label(page.text_input, "Search").set_value("").run()
    page.session_state["runs-state"] = ["Live", "Failed"]
    assert set(settled(page.run()).dataframe[0].value["name"]) == {"dpo-demo", "sft-first", "dpo-lr-too-high"}


def test_broken_folders_do_not_hide_the_others(app, runs):
    good = synthetic.make(runs, "good", 30)
    broken = synthetic.make(runs, "broken", 5)
    broken.spec_path.chmod(0o600)
    broken.spec_path.write_text("- not\n- a mapping\n")
    broken.events_path().write_text('{"kind": "step"}\ngarbage\n')
    table = app("runs").dataframe[0].value
    assert set(table["name"]) == {"good", f"{broken.id} · settings unreadable"}
    assert good.status.step == 30


def test_fifty_long_runs_are_listed_quickly(app, runs):
    for number in range(50):
        synthetic.make(runs, f"run-{number:02d}", 1000, 2000, seed=number)
    app("compare")
    began = time.process_time()
    page = app("runs")
    first_s = time.process_time() - began
    began = time.process_time()
    settled(page.run())
    again_s = time.process_time() - began
    print(f"50 runs of 1,000 steps: first {first_s:.2f} s, refreshed {again_s:.2f} s")
    assert len(page.dataframe[0].value) == 50
    assert first_s < 10
    assert again_s < 3
