"""The demo of SteerLM: its data and its pipeline, without running anything."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from workbench import api
from workbench.bench import steering_data


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (steering_data.FOLDER / name).read_text().splitlines()]


def test_the_files_are_what_the_rule_makes_of_the_pairs(tmp_path: Path) -> None:
    shutil.copy(steering_data.FOLDER / "preferences.jsonl", tmp_path)
    for made in steering_data.write(tmp_path):
        assert made.read_bytes() == (steering_data.FOLDER / made.name).read_bytes()


def test_the_held_out_prompts_are_in_no_answer() -> None:
    prompts = {row["prompt"] for row in rows("held_out.jsonl")}
    assert len(prompts) == steering_data.HELD_OUT
    assert prompts.isdisjoint(row["prompt"] for row in rows("answers.jsonl"))


def test_each_level_has_answers() -> None:
    counts = {name: Counter(row["attributes"][name] for row in rows("answers.jsonl")) for name in steering_data.ATTRIBUTES}
    assert min(counts["verbosity"].values()) > 120
    assert counts["verbosity"].keys() == {0, 1, 2, 3, 4}
    assert all(min(counts[name][0], counts[name][4]) > 180 for name in ("bullets", "question"))


def test_the_pipeline_measures_each_of_its_models_with_rules() -> None:
    stages = {stage.name: stage for stage in api.compose_pipeline("steerlm_demo")}
    for model in ("sft", "bootstrap", "steerlm2"):
        assert stages[f"{model}_answers"].experiment.job.checkpoint == stages[model].run_id  # type: ignore[attr-defined]
        assert stages[f"{model}_measured"].experiment.job.checkpoint is None  # type: ignore[attr-defined]
        assert f"{model}_measured" in stages[f"{model}_adherence"].needs
    assert stages["sft_measured_by_model"].experiment.job.checkpoint == stages["attribute_model"].run_id  # type: ignore[attr-defined]
    assert stages["sft"].experiment.data.train == stages["attribute_model"].experiment.data.train != stages["drawn_rated"].experiment.data.train
    assert stages["steerlm2"].experiment.data.steering == stages["sft"].experiment.data.steering
    assert tuple(stages["attribute_model"].experiment.algorithm.attributes) == steering_data.ATTRIBUTES  # type: ignore[attr-defined]
