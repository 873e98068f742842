"""The Compare page."""

from tests.app import synthetic
from tests.app.pages import by_label, settled, words
from workbench.rundir import store
from workbench.views import text


def test_differences_only(app, runs):
    one = synthetic.make(runs, "one", 30)
    two = synthetic.make(runs, "two", 40, overrides=("algorithm.beta=0.5",))
    page = app("compare", runs=f"{one.id},{two.id}")
    standing, diff = (frame.value for frame in page.dataframe)
    assert list(standing["Steps"]) == ["30", "40"]
    assert list(diff.index) == ["name", "algorithm.beta"]
    assert list(diff.loc["algorithm.beta"]) == ["0.1", "0.5"]


def test_a_held_out_metric(app, runs):
    synthetic.make(runs, "one", 30)
    page = app("compare")
    by_label(page.selectbox, "Metric").set_value(("accuracy", True)).run()
    assert settled(page).dataframe[0].value["Last"][0] == text.number(synthetic.validation(30)["metrics"]["accuracy"])


def test_begins_with_runs_that_have_made_steps(app, runs):
    run = synthetic.make(runs, "one", 30)
    store.create(runs, "z-new", synthetic.spec_yaml())
    assert app("compare").multiselect[0].value == [run.id]


def test_runs_without_steps(app, runs):
    store.create(runs, "new", synthetic.spec_yaml())
    assert "None of these runs has made a step yet" in words(app("compare"))


def test_runs_that_are_not_there_are_named_and_no_others_take_their_place(app, runs):
    one = synthetic.make(runs, "one", 30)
    synthetic.make(runs, "two", 40)
    page = app("compare", runs=f"{one.id},gone-1,gone-2")
    assert page.multiselect[0].value == [one.id]
    assert [word for word in ("gone-1", "gone-2") if word in words(page)] == ["gone-1", "gone-2"]
    page = app("compare", runs="gone-1")
    assert page.multiselect[0].value == []
    assert "There is no run `gone-1`" in page.error[0].value
    assert not page.dataframe


def test_a_choice_that_is_emptied_stays_empty(app, runs):
    synthetic.make(runs, "one", 30)
    page = app("compare")
    page.multiselect[0].set_value([]).run()
    assert settled(page.run()).multiselect[0].value == []


def test_no_run(app):
    assert "No runs yet" in words(app("compare"))
