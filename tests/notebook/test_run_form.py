"""The form in a notebook: its widgets are plain objects here, pressed and typed into as a browser would."""

import shlex
import threading
import time
from types import SimpleNamespace

import pytest

from workbench import api
from workbench.notebook.experiments import Experiment, as_spec
from workbench.notebook.widgets import live_run
from workbench.notebook.widgets.run_form import RunForm
from workbench.rundir.store import RunDir
from workbench.settings import composing, spec, start

PATIENCE_S = 60.0


@pytest.fixture
def form(request):
    """A form of an experiment that is closed again; a marker's argument names another than dpo_demo."""
    made = RunForm(getattr(request, "param", "dpo_demo"))
    yield made
    made.close()


def put(form, **values):
    """Type into fields; `__` stands for a dot."""
    for key, value in values.items():
        form.inputs[key.replace("__", ".")].widget.value = value


def checked(form):
    assert form.wait(PATIENCE_S)
    return form


def beside(form, key):
    return form.inputs[key].problem.widget.value


@pytest.mark.parametrize("name", composing.choices("experiment"))
def test_every_experiment_is_shown_and_is_what_is_composed(name):
    form = RunForm(name)
    try:
        assert checked(form).problems == []
        assert form.experiment == spec.compose([f"experiment={name}"])
        assert form.command == f"workbench run experiment={name}"
        inputs = form.inputs  # all of them are made now
        assert all(each.widget.tooltip.endswith((key, each.of.bounds)) for key, each in inputs.items())
        assert checked(form).experiment == spec.compose([f"experiment={name}"])
    finally:
        form.close()


def test_the_command_and_the_python_equal_the_form(form):
    put(form, algorithm__beta=0.3, name='it\'s "mine"', data__limit="64", model__recompute="full", model__lora__targets=["qkv"])
    form.choices.groups["backend"].value = "slurm"
    put(form, backend__modules=["cuda/12", "nccl"])
    experiment = checked(form).experiment
    assert (experiment.algorithm.beta, experiment.name, experiment.data.limit, experiment.model.recompute) == (0.3, 'it\'s "mine"', 64, "full")
    assert (experiment.model.lora.targets, experiment.backend.name, experiment.backend.modules) == (("qkv",), "slurm", ("cuda/12", "nccl"))
    assert spec.compose(shlex.split(form.command)[2:]) == experiment
    wb = SimpleNamespace(Experiment=Experiment, launch=as_spec)
    assert eval(form.python, {"wb": wb}) == experiment
    assert "--partition" not in form.command
    for words in ("workbench run experiment=dpo_demo", "wb.launch("):
        assert words in form.copied.value


def test_a_choice_rebuilds_its_section_and_keeps_what_was_typed(form):
    put(form, seed=7, model__lora__rank=4, algorithm__beta=0.7)
    model = form.sections["model"]
    form.choices.groups["algorithm"].value = "sft"
    assert "algorithm.beta" not in form.inputs
    assert form.inputs["algorithm.lr"].widget.value == 3e-5
    assert form.sections["model"] is model
    assert (form.experiment.seed, form.experiment.model.lora.rank, form.experiment.algorithm.name) == (7, 4, "sft")
    form.choices.groups["algorithm"].value = "dpo"
    assert form.experiment.algorithm.beta == 0.7


def test_another_job_and_experiment_begin_anew(form):
    put(form, seed=7)
    form.choices.experiment.value = "kto_demo"
    assert (form.experiment.algorithm.name, form.experiment.seed) == ("kto", 0)
    form.choices.job.value = "generate"
    assert "algorithm" not in form.sections
    assert form.values["job"]["name"] == "generate"
    assert form.choices.groups.keys() == {"model", "data", "backend"}
    form.choices.job.value = "train"
    assert checked(form).experiment == spec.compose(["experiment=dpo_demo"])


@pytest.mark.parametrize(
    ("key", "value", "place", "what"),
    [
        ("algorithm.beta", 0.0, "algorithm.beta", "greater than 0"),
        ("algorithm.lr", 99.0, "algorithm.lr", "less than or equal to 1"),
        ("model.lora.dropout", 1.0, "model.lora.dropout", "less than 1"),
        ("data.limit", "many", "data.limit", "valid integer"),
        ("data.train", "", "data.train", "at least 1 character"),
        ("data.train", "/nowhere/rows.jsonl", "data.train", "there is no file /nowhere/rows.jsonl"),
    ],
)
def test_a_problem_is_beside_its_field_and_in_the_summary(form, key, value, place, what):
    form.inputs[key].widget.value = value
    assert what in beside(form, place)
    assert f"<code>{place}</code>" in form.summary.value
    assert "1 problem" in form.sections[place.partition(".")[0]].widget.titles[0]
    assert form.launch_button.disabled
    assert form.experiment is None
    assert form.launch() is None
    assert checked(form).experiment is None


def test_a_problem_of_a_folded_section_is_in_its_title_before_it_is_opened(form):
    put(form, algorithm__label_smoothing=0.2)
    assert "cdpo needs a smoothing" in form.summary.value
    form.choices.groups["backend"].value = "slurm"
    section = form.sections["backend"]
    assert section.made == {}
    section.widget.selected_index = 0
    assert "backend.partition" in section.made


def test_what_is_wrong_with_the_contents_of_data_comes_from_the_thread(form, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "chosen": "b"}\n')
    put(form, data__train=str(rows))
    assert "Checking" in form.summary.value
    assert "rows are malformed" in beside(checked(form), "data.train")
    put(form, data__train="workbench/data/demo/preferences.jsonl")
    assert "Every setting is valid." in checked(form).summary.value
    put(form, seed=3)  # what is known of data and models still holds
    assert (form.pending, form.launch_button.disabled) == ([], False)


def test_a_missing_reward_has_a_short_command_and_is_typed_as_yaml(form):
    form.choices.groups["algorithm"].value = "ppo"
    assert "such as" in form.summary.value
    assert form.command == "workbench run experiment=dpo_demo algorithm=ppo"
    put(form, algorithm__rewards="{short: {program: brevty}}")
    assert "did you mean" in checked(form).summary.value
    put(form, algorithm__rewards="{short: {program: brevity}}")
    assert checked(form).experiment.algorithm.rewards["short"].program == "brevity"
    put(form, algorithm__rewards="{short: [")
    assert "algorithm.rewards" in form.summary.value


def test_a_change_takes_less_than_a_tenth_of_a_second_of_the_kernel(form):
    checked(form)
    assert form.inputs
    before = time.thread_time()
    for number in range(10):
        put(form, name=f"name {number}")
    assert (time.thread_time() - before) / 10 < 0.1


def test_an_experiment_that_is_given_fills_the_form():
    given = Experiment("dpo_demo", algorithm={"beta": 0.4}, seed=5)
    form = RunForm(given)
    try:
        assert checked(form).experiment == given.spec
        assert form.choices.experiment.value == "as given"
        form.choices.experiment.value = "ppo_demo"
        form.choices.experiment.value = "as given"
        assert form.experiment == given.spec
    finally:
        form.close()


def test_an_experiment_that_is_not_there_names_the_nearest():
    with pytest.raises(api.SpecError, match="did you mean 'dpo_demo'"):
        RunForm("dpo_dem")


def test_settings_of_another_version_are_named(form):
    tree = form.experiment.model_dump(mode="json")
    form.choices.begin(start.of_tree("old", {**tree, "gone": 1}))
    assert "gone" in form.unknown.value
    assert form.values == tree


def test_launch_submits_what_the_form_holds_and_shows_the_run(form, tmp_path, monkeypatch):
    submitted, views = [], []

    def submit(experiment):
        submitted.append(experiment)
        return api.Run(RunDir(tmp_path))

    def view(run, link):
        views.append(run)
        return live_run.ipywidgets.HTML(f"live {link}")

    monkeypatch.setattr(api, "submit", submit)
    monkeypatch.setattr(live_run, "LiveRun", view)
    put(form, algorithm__beta=0.25)
    form.launch_button.click()
    assert [each.algorithm.beta for each in submitted] == [0.25]
    assert form.run.dir == RunDir(tmp_path)
    assert views == [form.run]
    assert form.outcome.children[0].value.startswith("live")
    assert form.launch_button.disabled
    put(form, seed=2)
    assert not form.launch_button.disabled


def test_a_backend_that_cannot_start_is_said(form, monkeypatch):
    def submit(experiment):
        raise OSError("no space left on <device>")

    monkeypatch.setattr(api, "submit", submit)
    form.launch_button.click()
    assert "no space left on &lt;device&gt;" in form.outcome.children[0].value
    assert form.run is None
    assert not form.launch_button.disabled


def test_the_checks_on_the_cluster_belong_to_these_settings(form, monkeypatch):
    asked = []
    found = [api.Finding("start", "ok", "at noon"), api.Finding("nodes", "error", "no node has <16> GPUs", "backend.gpus_per_node")]
    monkeypatch.setattr(api, "preflight", lambda experiment, on_node: asked.append((experiment.backend.name, on_node)) or found)
    assert form.cluster.layout.display == "none"
    form.choices.groups["backend"].value = "slurm"
    checked(form)
    assert form.cluster.layout.display is None
    form.cluster.on_node.value = True
    form.cluster.button.click()
    assert form.cluster.wait(PATIENCE_S)
    assert asked == [("slurm", True)]
    shown = form.cluster.findings.value
    assert shown.index("no node has &lt;16&gt; GPUs") < shown.index("at noon")
    put(form, backend__num_nodes=2)
    assert "GPUs" not in checked(form).cluster.findings.value


def test_a_cluster_that_does_not_answer_is_said(form, monkeypatch):
    def preflight(experiment, on_node):
        raise ValueError("sinfo is not there")

    monkeypatch.setattr(api, "preflight", preflight)
    form.choices.groups["backend"].value = "slurm"
    form.cluster.button.click()
    assert form.cluster.wait(PATIENCE_S)
    assert "sinfo is not there" in form.cluster.findings.value
    assert not form.cluster.button.disabled


def test_closing_leaves_no_thread_while_sources_are_looked_at(monkeypatch):
    looking = threading.Event()

    def look(experiment, wait_s):
        looking.set()
        return api.SourceCheck([], ["data.train"])

    monkeypatch.setattr(api, "check_sources", look)
    form = RunForm("dpo_demo")
    assert looking.wait(PATIENCE_S)
    form.close()
    assert not [thread.name for thread in threading.enumerate() if "of a form" in thread.name]
    assert form.wait(0)


def test_a_saved_notebook_has_a_picture(form):
    put(form, name="<b>mine</b>")
    bundle = checked(form)._repr_mimebundle_()
    picture = bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle
    for part in ("algorithm.beta", "&lt;b&gt;mine", "workbench run experiment=dpo_demo", "Every setting is valid."):
        assert part in picture
    assert "<script" not in picture
    assert bundle["text/plain"] == f"RunForm({form.command})"
