"""Who measured and who rated the training rows, from the folders of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from workbench.data.targets import Targets
from workbench.rundir import store
from workbench.settings import Steering
from workbench.steering import provenance


class Runs:
    """Folders of runs as they are left, made without running anything."""

    def __init__(self, root: Path):
        self.root = root

    def made(self, name: str, **spec: Any) -> Path:
        folder = store.create(self.root, name, yaml.safe_dump({"name": name, "job": {"name": "train"}, **spec})).path
        (folder / "rows.jsonl").write_text("{}\n")
        return folder


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


def steerlm(runs: Runs, judge: Path, annotator: Path) -> Path:
    """annotator -> annotated training rows -> SFT -> answers -> rated by the judge and a rule. Returns the rated answers."""
    annotated = runs.made("annotate", job={"name": "annotate", "checkpoint": str(annotator / "checkpoints" / "8"), "rules": None})
    trained = runs.made("sft", data={"train": str(annotated / "rows.jsonl")})
    Targets.of(Steering(attributes=("humor",)), [{"humor": 1}], {}).write(trained / "attributes.json")
    answers = runs.made("generate", job={"name": "generate", "checkpoint": str(trained / "checkpoints" / "40")}, data={"train": "prompts.jsonl"})
    job = {"name": "annotate", "checkpoint": str(judge / "checkpoints" / "12"), "rules": ["verbosity"]}
    return runs.made("measure", job=job, data={"train": str(answers / "rows.jsonl")}) / "rows.jsonl"


def attribute_model(runs: Runs, name: str) -> Path:
    return runs.made(name, algorithm={"name": "reward_model", "attributes": ["humor", "wit"]}, data={"train": "helpsteer.jsonl"})


def test_a_judge_of_its_own(runs: Runs):
    annotator, judge = attribute_model(runs, "annotator"), attribute_model(runs, "judge")
    traced = provenance.trace(steerlm(runs, judge, annotator))
    assert traced.measured_by == {"humor": f"{judge.name}:12", "wit": f"{judge.name}:12", "verbosity": "rule verbosity"}
    assert traced.annotators == {annotator.name}
    assert traced.warnings == []
    assert traced.targets is not None and traced.targets.rows == 1


def test_the_model_that_annotated_is_named_as_a_doubtful_judge(runs: Runs):
    annotator = attribute_model(runs, "annotator")
    (warning,) = provenance.trace(steerlm(runs, annotator, annotator)).warnings
    assert warning.startswith(f"{annotator.name}:12 measured humor, wit, and rated the training rows as well")


def test_annotators_are_followed_through_bootstrapping_and_exports(runs: Runs):
    """The second model began with an export of the first, and learnt from its answers as another model rated them."""
    first, second, judge = (attribute_model(runs, name) for name in ("first", "second", "judge"))
    rated = steerlm(runs, judge, first)
    sft = next(runs.root.glob("*sft*"))
    exported = runs.made("export", job={"name": "export", "checkpoint": str(sft / "checkpoints" / "40")})
    again = runs.made("annotate", job={"name": "annotate", "checkpoint": str(second / "checkpoints" / "8")}, data={"train": str(rated)})
    trained = runs.made("sft2", data={"train": str(again / "rows.jsonl")}, model={"source": str(exported / "model")})
    answers = runs.made("generate", job={"name": "generate", "checkpoint": str(trained / "checkpoints" / "40")})
    measured = runs.made(
        "measure", job={"name": "annotate", "checkpoint": str(first / "checkpoints" / "8")}, data={"train": str(answers / "rows.jsonl")}
    )
    traced = provenance.trace(measured / "rows.jsonl")
    assert {first.name, second.name, judge.name} == traced.annotators
    assert len(traced.warnings) == 1 and first.name in traced.warnings[0]


def test_a_file_of_no_run_tells_nothing(tmp_path: Path):
    (tmp_path / "mine.jsonl").write_text(json.dumps({}))
    traced = provenance.trace(tmp_path / "mine.jsonl")
    assert (traced.measured_by, traced.annotators, traced.targets, traced.warnings) == ({}, frozenset(), None, [])
