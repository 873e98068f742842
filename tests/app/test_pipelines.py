"""The Pipelines page: stages, buttons, and a launch; and how a stage's run is marked elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

import workbench as wb
from tests.app import synthetic_pipelines as synthetic
from tests.app.pages import by_label, open_page, settled, words
from workbench.jobs import pipelines
from workbench.rundir.store import State


def test_empty_tells_what_a_pipeline_is_and_how_to_start_one(app, runs) -> None:
    page = app("pipelines")
    assert "A pipeline is several jobs in sequence" in words(page)
    page.selectbox(key="new-pipeline-name").set_value("export_demo").run()
    assert page.code[-1].value == "workbench run pipeline=export_demo"


def test_the_stages_with_what_failed_and_a_way_on(app, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = synthetic.failed(runs)
    page = app("pipelines")
    told = words(page)
    assert "1 of 3 stages complete" in told and "Export\\: rank 0 was killed by SIGKILL \\(out of memory?\\)." in told
    assert "Accuracy, held out: **" in told and "25 of 25 steps" in told
    assert "Waits for export, which failed." in told
    monkeypatch.setattr(pipelines, "_begin", lambda folder, plan: None)
    by_label(page.button, "Resume").click()
    settled(page.run())
    assert (folder.status.attempt, folder.status.resuming) == (2, ("export",))


def test_one_that_runs_can_be_stopped(app, runs: Path) -> None:
    folder = synthetic.make(runs, [{"steps": 5, "total": 25, "state": State.RUNNING}, None, None])
    page = app("pipelines", id=folder.id)
    assert "Waits for train." in words(page)
    by_label(page.button, "Stop").click()
    settled(page.run())
    assert folder.status.stopping and synthetic.run_of(folder, "train").status.state == State.STOPPING


def test_a_launch_with_words_for_one_stage(app, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = []
    monkeypatch.setattr(pipelines, "_begin", lambda folder, plan: launched.append(plan))
    page = app("pipelines")
    page.selectbox(key="new-pipeline-name").set_value("export_demo").run()
    page.text_input(key="new-pipeline-words").set_value("seed=3 trian.algorithm.lr=1").run()
    page.button(key="launch-pipeline").click()
    assert "did you mean 'train'?" in words(settled(page.run())) and not launched
    page.text_input(key="new-pipeline-words").set_value("seed=3 train.algorithm.lr=1e-3").run()
    assert page.code[-1].value == "workbench run pipeline=export_demo seed=3 train.algorithm.lr=1e-3"
    page.button(key="launch-pipeline").click()
    settled(page.run())
    assert (launched[0].experiment("train").algorithm.lr, launched[0].experiment("answers").seed) == (1e-3, 3)


def test_one_that_is_not_there_or_cannot_be_read(app, runs: Path) -> None:
    assert "There is no pipeline `20260101-none`" in words(app("pipelines", id="20260101-none"))
    folder = synthetic.complete(runs)
    (folder.path / "status.json").write_text("{")
    assert "no JSON" in words(open_page("pipelines"))


def test_a_stages_run_is_marked_in_the_list_and_leads_to_its_pipeline(app, runs: Path) -> None:
    folder = synthetic.complete(runs)
    page = app("runs")
    assert set(page.dataframe[0].value["name"]) == {f"export_demo {stage} · pipeline" for stage in synthetic.EXPORT_DEMO}
    by_label(page.text_input, "Search").set_value(folder.id).run()
    assert len(settled(page).dataframe[0].value) == 3
    run = open_page("run", id=synthetic.run_of(folder, "export").id)
    assert any(f"pipeline {folder.id}".replace("-", "\\-") in link.label for link in run.get("page_link"))


def test_in_a_notebook_a_pipeline_is_a_table_of_its_stages(runs: Path) -> None:
    folder = synthetic.failed(runs)
    item = wb.pipelines()[folder.id]
    assert item.df["state"].tolist() == ["completed", "failed", "waiting"]
    assert "Waits" not in item._repr_html_() and "waits for export, which failed" in item._repr_html_()
    assert repr(item) == f"Pipeline('{folder.id}': failed, 1 of 3 stages, export: rank 0 was killed by SIGKILL (out of memory?))"
    assert item["train"].id == synthetic.run_of(folder, "train").id
    with pytest.raises(ValueError, match="stage answers of .* is not launched: waits for export, which failed"):
        item["answers"]
    with pytest.raises(KeyError, match="has no stage 'trian'"):
        item["trian"]
    assert item.wait().state == State.FAILED
