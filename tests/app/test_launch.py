"""The Launch page: the form, the checks, the launch."""

import pytest
import yaml

from tests.app import synthetic
from tests.app.pages import by_label, composed, settled, words
from workbench import api
from workbench.rundir.store import State
from workbench.settings import spec


def test_has_every_field_of_the_spec(app):
    page = app("launch")
    help_texts = "\n".join(
        item.help or "" for kind in (page.number_input, page.text_input, page.text_area, page.selectbox, page.toggle) for item in kind
    )
    help_texts += "\n".join(str(item.proto.help) for item in page.get("button_group"))
    tree = spec.compose(["experiment=dpo_demo"]).model_dump()
    from workbench.settings.composing import leaves

    for key in dict(leaves(tree)).keys() - {"job.name", "algorithm.name", "backend.name"}:
        assert f"`{key}`" in help_texts, key


def test_starts_from_the_experiment_and_is_valid(app):
    page = app("launch")
    assert yaml.safe_load(page.code[1].value) == spec.compose(["experiment=dpo_demo"]).model_dump(mode="json")
    assert page.code[0].value == "workbench run experiment=dpo_demo"
    assert not by_label(page.button, "Launch run").disabled


def test_a_change_is_in_the_command_line(app):
    page = app("launch")
    by_label(page.number_input, "Beta").set_value(0.3).run()
    by_label(page.text_input, "Name").set_value("it's mine").run()
    by_label(page.number_input, "Limit").set_value(64).run()
    by_label(page.selectbox, "Recompute").set_value("full").run()
    experiment = composed(settled(page).code[0].value)
    assert (experiment.algorithm.beta, experiment.name, experiment.data.limit, experiment.model.recompute) == (0.3, "it's mine", 64, "full")


def test_choosing_another_algorithm_brings_its_fields(app):
    page = app("launch")
    assert any(item.label == "Beta" for item in page.number_input)
    by_label(page.selectbox, "Algorithm").set_value("sft").run()
    settled(page)
    assert not any(item.label == "Beta" for item in page.number_input)
    assert by_label(page.number_input, "Learning rate").value == 3e-5
    assert composed(page.code[0].value).algorithm.name == "sft"


def test_slurm_has_its_fields_and_the_servers_nodes(app):
    page = app("launch")
    by_label(page.selectbox, "Backend").set_value("slurm").run()
    by_label(page.text_input, "Constraint").set_value("h100&ib").run()
    next(item for item in page.number_input if "`backend.reward.nodes`" in item.help).set_value(2).run()
    next(item for item in page.multiselect if "`backend.modules`" in item.help).set_value(["cuda/12", "nccl"]).run()
    backend = composed(settled(page).code[0].value).backend
    assert (backend.name, backend.constraint, backend.reward.nodes, backend.critic.nodes) == ("slurm", "h100&ib", 2, 0)
    assert backend.modules == ("cuda/12", "nccl")
    assert not by_label(page.button, "Launch run").disabled


def test_a_choice_keeps_what_was_typed_elsewhere(app):
    page = app("launch")
    by_label(page.number_input, "Seed").set_value(7).run()
    by_label(page.selectbox, "Algorithm").set_value("sft").run()
    assert by_label(page.number_input, "Seed").value == 7


@pytest.mark.parametrize(
    ("label", "value", "key", "what"),
    [
        ("Beta", 0.0, "algorithm.beta", "greater than 0"),
        ("Label smoothing", 0.2, "algorithm", "cdpo needs a smoothing"),
        ("Dropout", 1.0, "model.lora.dropout", "less than 1"),
    ],
)
def test_a_problem_is_beside_its_field(app, label, value, key, what):
    page = app("launch")
    by_label(page.number_input, label).set_value(value).run()
    beside = [item.value for item in settled(page).caption if ":red[" in item.value]
    assert len(beside) == 1
    assert what in beside[0]
    assert f"`{key}`" in page.error[0].value
    assert by_label(page.button, "Launch run").disabled


def test_a_function_that_is_not_there(app):
    page = app("launch")
    by_label(page.selectbox, "Algorithm").set_value("grpo").run()
    by_label(page.text_area, "Rewards").set_value('{"a": {"program": "maths"}}').run()
    assert "did you mean 'math'?" in settled(page).error[0].value
    assert by_label(page.button, "Launch run").disabled


def test_a_number_out_of_bounds_is_a_problem_not_the_one_before(app):
    page = app("launch")
    by_label(page.number_input, "Learning rate").set_value(99.0).run()
    assert "less than or equal to 1" in settled(page).error[0].value
    assert by_label(page.button, "Launch run").disabled


def test_an_algorithm_that_lacks_something_has_a_short_command_line(app):
    page = app("launch")
    by_label(page.selectbox, "Algorithm").set_value("ppo").run()
    assert "such as" in settled(page).error[0].value
    assert page.code[0].value == "workbench run experiment=dpo_demo algorithm=ppo"
    by_label(page.text_area, "Rewards").set_value("{short: {program: brevity}}").run()
    assert composed(settled(page).code[0].value).algorithm.rewards["short"].program == "brevity"


def test_a_file_that_is_not_there(app):
    page = app("launch")
    by_label(page.text_input, "Train").set_value("/nowhere/rows.jsonl").run()
    by_label(page.text_input, "Source").set_value("x" * 100_000).run()
    by_label(page.number_input, "Ranks per node").set_value(2).run()
    assert "there is no file /nowhere/rows" in settled(page).error[0].value


def test_data_and_models_that_cannot_be_read_are_problems_of_their_settings(app, tmp_path):
    page = app("launch")
    by_label(page.text_input, "Train").set_value("README.md").run()
    assert "`data.train`: README" in settled(page).error[0].value
    assert "a data file ends in one of" in page.error[0].value.replace("\\", "")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "chosen": "b"}\n')
    by_label(page.text_input, "Train").set_value(str(tmp_path / "rows.jsonl")).run()
    assert "rows are malformed" in settled(page).error[0].value
    assert by_label(page.button, "Launch run").disabled
    by_label(page.text_input, "Train").set_value("workbench/data/demo/preferences.jsonl").run()
    by_label(page.selectbox, "Algorithm").set_value("grpo").run()
    by_label(page.text_area, "Rewards").set_value("{helpful: {model: nobody/nothing}}").run()
    assert "`algorithm.rewards.helpful.model`" in settled(page).error[0].value
    assert not [item for item in page.warning if "left out" in item.value]


def test_a_source_that_takes_long_leaves_the_form_free_and_is_named(app, monkeypatch):
    answers = [["data.train"], []]
    monkeypatch.setattr(api, "check_sources", lambda experiment, wait_s: api.SourceCheck([], answers[0]))
    page = app("launch")
    assert "Checking `data.train` …" in page.info[0].value
    assert not page.success
    del answers[0]
    assert settled(page.run()).success[0].value == "Every setting is valid."


def test_a_required_text_that_is_empty(app):
    page = app("launch")
    by_label(page.text_input, "Train").set_value("").run()
    assert "at least 1 character" in settled(page).error[0].value


def test_launch_submits_and_opens_the_run(app, runs, monkeypatch):
    submitted = []

    def submit(experiment):
        submitted.append(experiment)
        return api.Run(synthetic.make(runs, experiment.name, 0, 100, State.QUEUED))

    monkeypatch.setattr(api, "submit", submit)
    page = app("launch")
    by_label(page.number_input, "Beta").set_value(0.25).run()
    by_label(page.button, "Launch run").click().run()
    assert submitted[0].algorithm.beta == 0.25
    assert "Queued" in words(settled(page))


def test_a_backend_that_cannot_start_is_said(app, monkeypatch):
    def submit(experiment):
        raise OSError("no space left on device")

    monkeypatch.setattr(api, "submit", submit)
    page = app("launch")
    by_label(page.button, "Launch run").click().run()
    assert "no space left on device" in settled(page).error[0].value


def test_clone_holds_the_runs_settings(app, runs):
    overrides = ("algorithm=sft", "algorithm.lr=0.0002", "data.limit=9", "model.lora.targets=[qkv,fc1]", "validation.every_steps=0")
    run = synthetic.make(runs, "first", 5, overrides=overrides)
    page = app("launch", clone=run.id)
    assert yaml.safe_load(page.code[1].value) == yaml.safe_load(run.spec_path.read_text())
    assert composed(page.code[0].value) == api.Run(run).spec


@pytest.mark.parametrize("overrides", [("algorithm.objective=regression", "algorithm.attributes=[humor,brevity]"), ()])
def test_clone_of_a_reward_model(app, runs, overrides):
    run = synthetic.make(runs, "scores", 5, overrides=("algorithm=reward_model", *overrides))
    page = app("launch", clone=run.id)
    assert composed(page.code[0].value) == api.Run(run).spec
    assert list(by_label(page.multiselect, "Attributes").value) == list(api.Run(run).spec.algorithm.attributes)


def test_clone_of_a_run_of_another_version_says_what_is_left_out(app, runs):
    run = synthetic.make(runs, "old", 5)
    run.spec_path.chmod(0o600)
    run.spec_path.write_text(run.spec_path.read_text() + "gone: 1\n")
    page = app("launch", clone=run.id)
    assert "gone" in page.warning[0].value
    assert not by_label(page.button, "Launch run").disabled


def test_clone_of_nothing(app):
    assert "There is no run" in app("launch", clone="nobody").warning[0].value


def test_the_checks_on_the_cluster_are_told_and_belong_to_these_settings(app, runs, monkeypatch):
    asked = []
    found = [api.Finding("nodes", "error", "no node has 16 GPUs", "backend.gpus_per_node"), api.Finding("start", "ok", "at noon")]
    monkeypatch.setattr(api, "preflight", lambda experiment, on_node: asked.append((experiment.backend.name, on_node)) or found)
    page = app("launch")
    assert not [button for button in page.button if button.label == "Check on the cluster"]
    by_label(page.selectbox, "Backend").set_value("slurm").run()
    assert by_label(settled(page).multiselect, "Modules").value == []
    by_label(page.button, "Check on the cluster").click().run()
    assert asked == [("slurm", False)]
    assert "no node has 16 GPUs" in words(settled(page))
    by_label(page.number_input, "Num nodes").set_value(2).run()
    assert "no node has 16 GPUs" not in words(settled(page))
