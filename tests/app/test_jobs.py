"""Jobs that do not train, in the pages: their form, their rows in the list, their Run page, their rollouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.app import synthetic, synthetic_jobs
from tests.app.pages import by_label, composed, on_tab, settled, words
from workbench import api
from workbench.rundir import rollouts
from workbench.rundir.store import RunDir, State
from workbench.settings.spec import Experiment


@pytest.fixture
def trained(runs: Path) -> RunDir:
    run = synthetic.make(runs, "dpo-demo", 60, overrides=("algorithm.beta=0.3", "data.limit=90", "model.lora.rank=8"))
    for folder in run.checkpoints.iterdir():
        kept = {"model": api.Run(run).spec.model.model_dump(mode="json", include={"source", "precision", "lora", "init_seed"})}
        (folder / "meta.json").write_text(json.dumps(kept))
    return run


def headings(page) -> list[str]:
    return [item.value.rpartition(": ")[2].removeprefix("#### ") for item in page.markdown if item.value.startswith("#### ")]


def launched(page, monkeypatch) -> Experiment:
    """What the form's button would submit."""
    submitted: list[Experiment] = []

    def submit(experiment: Experiment) -> api.Run:
        submitted.append(experiment)
        raise OSError("not here")

    assert not by_label(page.button, "Launch run").disabled, words(page)
    monkeypatch.setattr(api, "submit", submit)
    by_label(page.button, "Launch run").click().run()
    return submitted[0]


def test_the_form_of_a_job_has_the_sections_that_it_reads(app, monkeypatch):
    page = app("launch")
    by_label(page.selectbox, "Job").set_value("generate").run()
    assert {heading.split()[-1] for heading in headings(settled(page))} == {"General", "Generate", "Model", "Data", "Rollouts", "watch", "Backend"}
    assert not {"Algorithm", "Start from an experiment"} & {item.label for item in page.selectbox}
    assert page.code[0].value == "workbench run job=generate name=generate"
    by_label(page.number_input, "Max tokens").set_value(32).run()
    by_label(page.text_input, "Train").set_value("workbench/data/demo/preferences.jsonl").run()
    experiment = composed(settled(page).code[0].value)
    assert (experiment.job.name, experiment.job.max_tokens, experiment.algorithm.name) == ("generate", 32, "none")
    assert "algorithm" not in yaml.safe_load(page.code[1].value)
    assert launched(page, monkeypatch) == experiment
    by_label(page.selectbox, "Job").set_value("train").run()
    assert settled(page).code[0].value == "workbench run experiment=dpo_demo"
    assert "Algorithm" in {item.label for item in page.selectbox}


def test_the_form_of_an_evaluation_of_a_run_that_is_not_there(app, trained):
    page = app("launch", job="evaluate")
    assert by_label(page.selectbox, "Algorithm").value == "dpo"
    by_label(page.text_input, "Checkpoint").set_value("nobody:3").run()
    beside = [item.value for item in settled(page).caption if ":red[" in item.value]
    assert len(beside) == 1
    assert "nobody" in beside[0]
    assert by_label(page.button, "Launch run").disabled


@pytest.mark.parametrize(("label", "job"), [("Generate with it", "generate"), ("Evaluate it", "evaluate")])
def test_a_checkpoint_opens_the_form(app, runs, trained, label, job, monkeypatch):
    page = on_tab(app("run", id=trained.id), trained, "Checkpoints")
    by_label(page.selectbox, "Checkpoint of step").set_value("40").run()
    assert f"workbench export {trained.id} --step 40 --out exports/{trained.id}" in words(settled(page))
    by_label(page.button, label).click().run()
    experiment = composed(settled(page).code[0].value)
    theirs = api.Run(trained).spec
    assert (experiment.job.name, experiment.job.checkpoint, experiment.name) == (job, f"{trained.id}:40", f"{job} dpo-demo")
    assert (experiment.data, experiment.model.lora) == (theirs.data, theirs.model.lora)
    if job == "evaluate":
        assert experiment.algorithm == theirs.algorithm
    page = app("launch", job=job, checkpoint=f"{trained.id}:40")
    assert composed(page.code[0].value) == experiment
    assert launched(page, monkeypatch).job.checkpoint == str(trained.checkpoints / "40")


@pytest.mark.parametrize(
    ("query", "said"), [({"job": "train", "checkpoint": "x:1"}, "takes no checkpoint"), ({"job": "evaluate", "checkpoint": "x:1"}, "x")]
)
def test_a_link_to_what_is_not_there(app, query, said):
    assert said in app("launch", **query).warning[0].value


def test_a_clone_of_a_run_that_generated(app, runs):
    run = synthetic_jobs.generate(runs)
    page = app("launch", clone=run.id)
    experiment = composed(page.code[0].value)
    assert experiment == api.Run(run).spec
    assert not page.warning
    assert by_label(page.number_input, "Prompts per step").value == 4


def test_the_list_tells_the_kind_of_job(app, runs, trained):
    synthetic_jobs.generate(runs)
    synthetic_jobs.evaluate(runs, trained)
    page = app("runs")
    assert set(page.dataframe[0].value["work"]) == {"dpo", "generate", "evaluate · dpo"}
    by_label(page.text_input, "Search").set_value("evaluate").run()
    assert list(settled(page).dataframe[0].value["held_out"]) == [f"{synthetic.validation(40)['metrics']['accuracy']:.1%}"]


def test_a_run_that_generates(app, runs):
    run = synthetic_jobs.generate(runs, steps=2, state=State.RUNNING)
    page = app("run", id=run.id)
    assert [tab.label.split(": ")[1] for tab in page.tabs if "Tokens" not in tab.label and "Follow" not in tab.label] == [
        "Answers",
        "Log",
        "Settings",
    ]
    shown = {metric.label: metric.value for metric in page.metric}
    assert (shown["Prompts answered"], shown["Answer length"], shown["Ended"], shown["Tokens / s"]) == ("8", "24.0", "75%", "480.0")
    assert any("8 of 10 prompts answered · 10 s left" in bar.proto.text for bar in page.get("progress"))
    assert "are written when every prompt is answered" in words(page)
    assert {"Stop", "Kill now", "Clone"} <= {button.label for button in page.button}


def test_a_run_that_generated(app, runs):
    run = synthetic_jobs.generate(runs)
    page = app("run", id=run.id)
    assert {metric.label: metric.value for metric in page.metric}["Prompts answered"] == "10"
    table = page.dataframe[0].value
    assert len(table) == 20
    assert not {"reward", "kl_sum"} & set(table)
    by_label(page.text_input, "Search").set_value("sleepy CATS").run()
    assert 0 < len(settled(page).dataframe[0].value) < 20
    assert f"`{run.path / 'answers.jsonl'}`" in words(page)
    (download,) = page.get("download_button")
    assert download.proto.label.startswith("answers.jsonl · ")
    settled(on_tab(page, run, "Settings"))
    assert composed(page.code[1].value) == api.Run(run).spec


def test_a_run_that_generated_nothing_yet(app, runs):
    run = synthetic_jobs.generate(runs, steps=0, state=State.RUNNING)
    assert "The first answers appear" in words(app("run", id=run.id))
    assert "job is `generate`" in words(app("rollouts", id=run.id))


def test_a_run_that_rated(app, runs):
    run = synthetic_jobs.annotate(runs)
    page = app("run", id=run.id)
    table = page.dataframe[0].value
    assert list(table.columns) == ["Prompt", "Answer", "Requested", "verbosity", "question"]
    assert list(table.iloc[1]) == [synthetic.PROMPTS[0], "Answer 1", "verbosity 2", 1, 0]
    assert f"`{run.path / 'annotated.jsonl'}`" in words(page)
    (chart,) = page.get("plotly_chart")
    assert {trace["name"]: (trace["x"], trace["y"]) for trace in json.loads(chart.proto.spec)["data"]} == {
        "verbosity": ([0, 1, 2], [2, 2, 2]),
        "question": ([0], [6]),
    }


def test_a_run_that_rated_nothing_yet_or_is_damaged(app, runs):
    run = synthetic_jobs.annotate(runs, state=State.RUNNING)
    assert "is written when every answer is rated" in words(app("run", id=run.id))
    (run.path / "annotated.jsonl").write_text("[1]\n")
    assert "line 1 is no row" in words(app("run", id=run.id))


def test_an_evaluation(app, runs, trained):
    run = synthetic_jobs.evaluate(runs, trained)
    page = app("run", id=run.id)
    assert [tab.label.split(": ")[1] for tab in page.tabs] == ["Metrics", "Answers", "Log", "Settings"]
    table = page.dataframe[0].value.set_index("Metric")
    assert list(table.columns) == ["Value", "Unit", "What it is"]
    assert float(table.loc["Accuracy", "Value"]) == pytest.approx(synthetic.validation(40)["metrics"]["accuracy"], abs=1e-3)
    assert "Measures step **40** of" in words(page)
    (link,) = [item.proto for item in page.get("page_link") if "dpo" in item.proto.label]
    assert trained.id in link.query_string
    page = on_tab(page, run, "Answers")
    assert [item.value for item in page.text][:2] == [synthetic.PROMPTS[0], synthetic.validation(40)["samples"][0]["response"]]


def test_an_evaluation_that_has_only_begun(app, runs, trained):
    run = synthetic_jobs.evaluate(runs, trained, state=State.RUNNING)
    assert "The metrics appear when" in words(app("run", id=run.id))
    assert "job is `evaluate`" in words(app("rollouts", id=run.id))


def test_an_evaluation_with_diagnostics(app, runs, trained):
    run = synthetic_jobs.evaluate(runs, trained, state=State.RUNNING)
    synthetic.append(run, 0.0, "validation", **synthetic.reward_validation(40))
    page = on_tab(app("run", id=run.id), run, "Diagnostics")
    assert "**Calibration**" in words(page)


def test_rollouts_without_rewards(app, runs):
    run = synthetic_jobs.generate(runs)
    page = app("rollouts", id=run.id)
    assert "Reward" not in {metric.label for metric in page.metric}
    assert not {"reward", "kl_sum"} & set(page.dataframe[0].value)
    assert not {"Reward", "KL"} & set(by_label(page.selectbox, "Sort by").options)
    assert "Min reward" not in {item.label for item in page.number_input}
    log_prob = sum(rollouts.one(run, 3, 0)["rollout_logprobs"])
    assert float(by_label(page.metric, "Log-prob").value.replace("−", "-")) == pytest.approx(log_prob, rel=1e-3)
    page.session_state[f"tab-rollout-{run.id}"] = next(tab.label for tab in page.tabs if "Follow" in tab.label)
    assert "reward" not in "\n".join(item.value for item in settled(page.run()).markdown)


def test_a_kind_without_a_view_has_its_log_and_settings(app, runs):
    run = synthetic_jobs.generate(runs)
    run.spec_path.chmod(0o600)
    run.spec_path.write_text(run.spec_path.read_text().replace("name: generate", "name: distil"))
    page = app("run", id=run.id)
    assert [tab.label.split(": ")[1] for tab in page.tabs] == ["Log", "Settings"]
