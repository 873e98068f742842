"""The form as plain descriptions: nothing of an experiment is lost on the way, and each problem has its place."""

import pytest

from workbench.settings import command_line, composing, spec, start
from workbench.views import form

EXPERIMENTS = composing.choices("experiment")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_form_holds_the_whole_experiment(experiment):
    tree = command_line.resolved([f"experiment={experiment}"])
    described = form.describe(tree)
    assert described.tree(lambda field: field.value) == tree
    assert described.unknown == ()
    fields = {field.key for field in described.fields()}
    leaves = dict(composing.leaves(command_line.read_by_its_job(tree)))
    undrawn = {key for key in leaves if not any(key == field or key.startswith(f"{field}.") for field in fields)}
    assert {key for key in undrawn if leaves[key] is not None} <= {key for key in leaves if key.endswith(".name")}


@pytest.mark.parametrize("job", composing.choices("job"))
def test_every_kind_of_job_has_a_form_that_begins_somewhere(job):
    begin = start.of_experiment(job)
    described = form.describe(begin.tree)
    assert {section.path for section in described.sections} <= {"", *command_line.sections_of(begin.tree)}
    assert {*begin.chosen} == {*command_line.groups(job)}
    assert described.tree(lambda field: field.value).keys() == begin.tree.keys() & spec.Experiment.model_fields.keys()


def test_a_choice_keeps_the_other_groups():
    begin = start.of_experiment("train", "dpo_demo")
    assert start.with_choices(begin, begin.chosen) == (["experiment=dpo_demo"], begin.tree)
    overrides, tree = start.with_choices(begin, {"algorithm": "sft", "model": None})
    assert overrides == ["experiment=dpo_demo", "algorithm=sft"]
    assert {group: tree[group] == begin.tree[group] for group in ("algorithm", "model", "data")} == {"algorithm": False, "model": True, "data": True}
    assert start.chosen_word(overrides, "algorithm.lr") == "algorithm=sft"
    assert start.chosen_word(overrides, "model.lora.rank") == ""


def test_keys_that_this_version_does_not_have_are_named():
    tree = command_line.resolved(["experiment=dpo_demo"])
    described = form.describe({**tree, "gone": 1, "model": {**tree["model"], "lora": {**tree["model"]["lora"], "old": 2}}})
    assert described.unknown == ("gone", "model.lora.old")
    assert described.tree(lambda field: field.value) == tree


def test_fields_have_their_kinds_bounds_and_defaults():
    fields = {field.key: field for field in form.describe(command_line.resolved(["experiment=dpo_demo", "backend=slurm"])).fields()}
    kinds = {
        key: fields[key].kind for key in ("algorithm.lr", "data.limit", "model.recompute", "model.lora.targets", "backend.modules", "model.source")
    }
    assert list(kinds.values()) == ["number", "integer", "choice", "choices", "words", "text"]
    assert (fields["algorithm.lr"].bounds, fields["data.limit"].optional, fields["data.limit"].number) == ("> 0, ≤ 1", True, None)
    assert fields["algorithm.lr"].label == "Learning rate"
    assert fields["data.limit"].typed("") is None
    assert fields["model.source"].typed("") == ""


def trees(*words):
    return [spec.filled(composing.compose_tree([word, "data=demo"])) for word in words]


def test_a_problem_is_at_its_field_or_at_the_nearest_section():
    problems = [("algorithm.beta", "too small"), ("algorithm.rewards.a", "no such program"), ("gone", "no such key")]
    assert form.beside(problems, {"", "algorithm", "algorithm.beta"}) == [
        ("algorithm.beta", "too small"),
        ("algorithm", "algorithm.rewards.a: no such program"),
        ("", "gone: no such key"),
    ]


def test_a_mapping_is_yaml_and_what_is_none_stays_as_it_was_typed():
    fields = {
        field.key: field for tree in trees("job=generate", "algorithm=sft") for section in form.describe(tree).sections for field in section.fields()
    }
    columns, targets, steering = fields["data.columns"], fields["job.targets"], fields["data.steering"]
    assert columns.mapped("{short: {program: brevity}}") == {"short": {"program": "brevity"}}
    assert [field.kind for field in (columns, targets, steering)] == ["mapping"] * 3
    assert [field.mapped(" ") for field in (columns, targets, steering)] == [{}, [], None]
    assert columns.mapped("{a: [") == "{a: ["
