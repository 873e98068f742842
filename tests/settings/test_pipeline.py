"""Pipelines as YAML and words: which stage a word is for, what stands for an output, in which order stages come, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from workbench.settings import pipeline as pipelines
from workbench.settings.composing import SpecError
from workbench.settings.pipeline import Pipeline, Stage

ROOT = Path("/runs")
FOUR = {
    "answers": ("job=generate", "data.limit=8"),
    "train": ("algorithm=sft", "data.train=${answers.rows}", "algorithm.lr=1e-3"),
    "export": ("job=export", "job.checkpoint=${train.checkpoint}"),
    "last": ("job=generate", "model.source=${export.model}", "data.train=${answers.rows}"),
}


def of(stages: Mapping[str, Sequence[str]] = FOUR, *words: str) -> Pipeline:
    return pipelines.with_overrides(Pipeline("demo", "", {name: tuple(own) for name, own in stages.items()}), words)


def composed(pipeline: Pipeline) -> dict[str, Stage]:
    ids = {name: f"20261127-101500-{name}-0a1b" for name in pipeline.stages}
    return {stage.name: stage for stage in pipelines.compose(pipeline, ids, ROOT)}


def refused(stages: Mapping[str, Sequence[str]], *words: str) -> str:
    with pytest.raises(SpecError) as told:
        composed(of(stages, *words))
    return str(told.value)


def test_an_output_is_a_path_or_a_runs_id_that_is_known_before_the_run() -> None:
    stages = composed(of())
    assert stages["train"].experiment.data.train == "/runs/20261127-101500-answers-0a1b/answers.jsonl"
    assert stages["export"].experiment.job.model_dump()["checkpoint"] == "20261127-101500-train-0a1b"
    assert stages["last"].experiment.model.source == "/runs/20261127-101500-export-0a1b/export"
    assert stages["last"].needs == ("export", "answers")
    assert stages["last"].uses == ("/runs/20261127-101500-export-0a1b/export", "/runs/20261127-101500-answers-0a1b/answers.jsonl")
    assert [stage.experiment.name for stage in stages.values()] == ["demo answers", "demo train", "demo export", "demo last"]


def test_an_output_within_a_longer_value() -> None:
    words = ("job=generate", "job.checkpoint=${train.checkpoint}:4", "data.train='${train.run}/rows.jsonl'", "data.limit=3")
    stage = composed(of({"train": ("algorithm=sft",), "generate": words}))["generate"]
    assert stage.experiment.job.model_dump()["checkpoint"] == "20261127-101500-train-0a1b:4"
    assert stage.experiment.data.train == "/runs/20261127-101500-train-0a1b/rows.jsonl"
    reward = ("algorithm=grpo", "algorithm.rewards={helpful: {model: ${export.model}}}")
    stages = composed(of({"train": ("algorithm=reward_model",), "export": FOUR["export"], "online": reward}))
    assert stages["online"].experiment.model_dump()["algorithm"]["rewards"]["helpful"]["model"] == stages["online"].uses[0]


def test_an_odd_folder_of_runs_stays_one_value() -> None:
    ids = {name: name for name in FOUR}
    stages = {stage.name: stage for stage in pipelines.compose(of(), ids, Path("/my runs, {a}=b/it's"))}
    assert stages["train"].experiment.data.train == "/my runs, {a}=b/it's/answers/answers.jsonl"


def test_a_word_is_for_all_stages_that_read_it_or_for_one() -> None:
    stages = composed(of(FOUR, "seed=3", "algorithm.lr=1e-4", "train.algorithm.max_steps=7", "last.job.max_tokens=5", "name=mine"))
    assert {stage.experiment.seed for stage in stages.values()} == {3}
    assert (stages["train"].experiment.algorithm.lr, stages["train"].experiment.algorithm.max_steps) == (1e-4, 7)
    assert stages["last"].experiment.job.model_dump()["max_tokens"] == 5
    assert stages["export"].experiment.name == "mine export"


def test_one_stage_has_its_own_way_whatever_all_have() -> None:
    """A choice is made anew, and what a stage has from another one stays."""
    stages = composed(of(FOUR, "backend=slurm", "train.backend=local", "model.source=other", "train.algorithm=dpo"))
    assert [stage.experiment.backend.name for stage in stages.values()] == ["slurm", "local", "slurm", "slurm"]
    assert stages["train"].experiment.algorithm.name == "dpo"
    assert [stages[name].experiment.model.source for name in ("answers", "last")] == ["other", stages["last"].uses[0]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trian.algorithm.lr=1",), "trian.algorithm.lr: there is no stage and no section 'trian'; did you mean 'train'?; the stages are: answers, "),
        (("train.algorithm.lrr=1",), "train.algorithm.lrr: there is no such key; did you mean 'lr'?"),
        (("train.algoritm.lr=1",), "train.algoritm: there is no such key; did you mean 'algorithm'?"),
        (("modle.source=x",), "there is no stage and no section 'modle'; did you mean 'model'?"),
        (("algorithm.lr=2",), "train.algorithm.lr: input should be less than or equal to 1"),
        (("validation.every_steps=2", "rollout.slots=oops"), "answers.rollout.slots: "),
        (("job=train",), "job: is of one stage: answers.job=train"),
        (("experiment=dpo_demo",), "experiment: is of one stage: answers.experiment=dpo_demo"),
        (("train=3",), "train=3: expected a setting of the stage, as in train.seed=3"),
        (("seed",), "seed: expected key=value"),
        (("train.backend=slurmm",), "train.backend: there is no 'slurmm'; did you mean 'slurm'?"),
    ],
)
def test_a_wrong_word_is_refused_with_the_nearest(words: Sequence[str], message: str) -> None:
    assert message in refused(FOUR, *words)


def test_until_a_stage_leaves_it_and_what_it_needs() -> None:
    assert list(composed(of(FOUR, "until=train", "train.seed=4"))) == ["answers", "train"]
    assert list(composed(of(FOUR, "until=last"))) == list(FOUR)
    assert "there is no stage 'trian'; did you mean 'train'?" in refused(FOUR, "until=trian")
    assert refused(FOUR, "until=answers", "train.seed=4") == "train.seed=4: is of a stage that until=answers leaves out"


def test_a_word_that_no_stage_reads_is_refused() -> None:
    assert refused({"answers": FOUR["answers"]}, "checkpoint.every_steps=2") == "checkpoint.every_steps=2: no stage's kind of job reads this setting"


def test_outputs_that_are_not_there() -> None:
    told = "train: ${answers.model}: a stage with job=generate has no output 'model'; answers has: rows, run"
    assert refused({**FOUR, "train": ("algorithm=sft", "data.train=${answers.model}")}) == told
    told = "train: ${answer.rows}: there is no stage 'answer'; did you mean 'answers'?; the stages are: answers, train"
    assert refused({"answers": FOUR["answers"], "train": ("algorithm=sft", "data.train=${answer.rows}")}) == told
    assert "${rows}: there is no stage 'rows'" in refused({"train": ("algorithm=sft", "data.train=${rows}")})


def test_a_job_that_does_not_complete_is_no_stage() -> None:
    assert (
        refused({"answers": FOUR["answers"], "endpoint": ("job=serve",)})
        == "endpoint.job: job=serve does not complete by itself, so it is no stage: launch it on its own"
    )


def test_a_cycle_is_named() -> None:
    cycle = {
        "a": ("job=generate", "data.train=${c.rows}"),
        "b": ("job=generate", "data.train=${a.rows}"),
        "c": ("job=generate", "data.train=${b.rows}"),
    }
    assert refused(cycle) == "stages: a cycle: a -> c -> b -> a"
    assert refused({"before": ("job=generate",), "own": ("job=generate", "data.train=${own.rows}")}) == "stages: a cycle: own -> own"


def test_stages_come_after_those_that_they_need_else_as_in_the_file() -> None:
    """Of a file in any order."""
    assert list(pipelines.needs(of())) == ["answers", "train", "export", "last"]
    assert list(pipelines.needs(of(dict(reversed(FOUR.items()))))) == ["answers", "train", "export", "last"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {a: [job=generate]}\nname: x\n", "there is no such key: name; a pipeline has: description, stages"),
        ("stags: {a: [job=generate]}\n", "there is no such key: stags; did you mean 'stages'?"),
        ("description: nothing\n", "stages is required"),
        ("stages: {}\n", "stages: dictionary should have at least 1 item"),
        ("stages: {a: job=generate}\n", "stages.a: expected a list of words as on the command line"),
        ("stages: {A b: [job=generate]}\n", "stages.A b: a stage's name has up to 40 lower-case letters"),
        ("stages: {model: [job=generate]}\n", "stages.model: a stage cannot be called 'model', which begins the settings of an experiment"),
        ("- a\n", "expected a mapping of settings"),
        ("stages: {a: &x [job=generate], b: *x}\n", "line 1: no aliases and no tags are read here"),
    ],
)
def test_a_file_that_is_none(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SpecError) as told:
        pipelines.read(str(tmp_path / "mine.yaml"))
    assert message in str(told.value) and str(tmp_path / "mine.yaml") in str(told.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(
        SpecError,
        match=r"there is no 'export_dem'; did you mean 'export_demo'\?; there are: .*export_demo, .*a file of your own is named by its path",
    ):
        pipelines.read("export_dem")
    with pytest.raises(SpecError, match=r"\./none\.yaml: No such file or directory"):
        pipelines.read("./none.yaml")


@pytest.mark.parametrize("name", pipelines.shipped())
def test_the_shipped_ones_compose(name: str) -> None:
    pipeline = pipelines.read(name)
    assert pipeline.description.endswith(".")
    assert composed(pipeline).keys() == pipeline.stages.keys()
