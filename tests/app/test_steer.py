"""The Steer and Chat pages' Python side: endpoints found, started and stopped, and what they lead to."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import pytest
from ui import endpoint_panel

from tests import fake_endpoint
from tests.app import synthetic
from tests.app.pages import by_label, on_tab, words
from tests.fake_endpoint import Endpoint
from workbench import api
from workbench.rundir import permission
from workbench.rundir.adherence import Adherence, Attribute, Estimate, Level
from workbench.rundir.store import State
from workbench.settings import pipeline as pipelines


@pytest.fixture
def endpoint(runs) -> Iterator[Endpoint]:
    with fake_endpoint.serving(runs) as endpoint:
        yield endpoint


@pytest.mark.parametrize("page", ["steer", "chat"])
def test_without_an_endpoint(app, page):
    assert "No endpoint is running" in words(app(page))


def test_what_is_served_and_its_stop(app, endpoint):
    page = app("steer")
    assert "steerlm" in words(page) and "3 attributes" in words(page) and "/runs/base" in words(page)
    assert endpoint.token not in words(page)
    by_label(page.button, "Stop the endpoint").click().run()
    assert endpoint.run.status.state == State.STOPPING


def test_one_that_starts_says_what_it_is_doing(app, runs):
    fake_endpoint.made(runs, message="loading the weights", state=State.STARTING)
    assert "loading the weights" in words(app("chat"))


def test_a_checkpoint_that_another_page_names_is_offered(app, runs, monkeypatch):
    run = synthetic.make(runs, "sft", 40, 40, State.COMPLETED, overrides=("algorithm=sft",))
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(api, "serve", lambda checkpoints, overrides: asked.append(checkpoints) or fake_endpoint.made(runs))
    page = on_tab(app("run", id=run.id), run, "Checkpoints")
    assert {"Chat", "Steer"} <= {button.label for button in page.button}
    page = app("steer", checkpoint=f"{run.id}:40")
    assert f"{run.id}:40" in words(page) and "is not served yet" in words(page)
    by_label(page.button, "Serve it").click().run()
    assert asked == [[f"{run.id}:40"]]


def test_a_refused_start_says_why(app, runs, monkeypatch):
    def serve(checkpoints: Sequence[str], overrides: Sequence[str]) -> None:
        raise ValueError("run x has no complete checkpoint")

    monkeypatch.setattr(api, "serve", serve)
    page = app("chat", checkpoint="x:3")
    page = by_label(page.button, "Serve it").click().run()
    assert "The endpoint cannot be started" in words(page) and "has no complete checkpoint" in words(page)


def test_checkpoints_that_can_be_served_are_listed(runs):
    run = synthetic.make(runs, "sft", 40, 40, State.COMPLETED)
    synthetic.make(runs, "early", 3, 40)
    assert list(endpoint_panel._checkpoints()) == [f"{run.id}:40"]


def test_a_setting_of_the_sliders_fills_the_launcher_of_pipelines(app, endpoint):
    name, typed = api.with_targets(endpoint.run.id, "steerlm", {"verbosity": 4, "humor": 0})
    page = app("pipelines")
    page.session_state["filled-pipeline"] = (name, shlex.join(typed))
    page = page.run()
    command = next(code.value for code in page.code if code.value.startswith("workbench run pipeline=fixed_targets"))
    overrides = [word for word in shlex.split(command) if not word.startswith(("workbench", "run", "pipeline="))]
    plan = pipelines.with_overrides(pipelines.read(name), overrides)
    assert "answers.job.targets=[{verbosity:4,humor:0}]" in overrides and list(plan.stages) == ["answers", "sft"]


def test_a_setting_without_sliders_is_refused(endpoint):
    with pytest.raises(ValueError, match="was not trained with attributes"):
        api.with_targets(endpoint.run.id, "base", {"verbosity": 4})
    with pytest.raises(ValueError, match="set a slider: steerlm takes "):
        api.with_targets(endpoint.run.id, "steerlm", {})


def test_adherence_is_drawn_or_how_to_make_it_is_said(app, runs):
    page = app("steer")
    page.session_state["tab-steer"] = next(tab.label for tab in page.tabs if "Adherence" in tab.label)
    assert "job=adhere" in words(page.run())
    run = synthetic.make(runs, "adhere", 0)
    known = Estimate(2.0, 1.5, 2.5)
    attribute = Attribute("verbosity", 10, True, [Level(0.0, 5, known, known), Level(4.0, 5, known, known)], known, known, known, known, {})
    Adherence(10, 5, [attribute], {"verbosity": {"verbosity": known}}, {}, {"verbosity": "rule"}, ["few rows"]).write(run.path / "adherence.json")
    page = page.run()
    assert not page.exception
    assert "10 answers to 5 prompts" in words(page) and "Few rows" in words(page)
    (run.path / "adherence.json").write_text("{}")
    assert "Cannot be read" in words(page.run())


def test_a_team_sees_no_page_that_asks(app, endpoint, monkeypatch):
    monkeypatch.setattr(permission, "_reason", "only reads")
    for name in ("steer", "chat"):
        page = app("runs")
        assert name not in str([link.label for link in page.get("page_link")]).lower()
