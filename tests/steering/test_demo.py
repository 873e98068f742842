"""The demo of SteerLM: its data and its pipeline, without running anything."""

from __future__ import annotations

import json
from collections import Counter

from workbench import api
from workbench.bench import steering_data
from workbench.steering import rules


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (steering_data.FOLDER / name).read_text().splitlines()]


def test_the_held_out_questions_are_in_no_answer():
    questions = {row["prompt"] for row in rows("held_out.jsonl")}
    assert len(questions) == steering_data.HELD_OUT
    assert questions == set(steering_data.held_out(rows("preferences.jsonl")))
    assert questions.isdisjoint(row["prompt"] for row in rows("answers.jsonl"))


def test_the_answers_are_balanced_as_the_rule_says():
    answers = [row["response"] for row in rows("answers.jsonl")]
    rated = Counter(tuple(rules.rate(name, rules.RULES[name], [], answer) for name in steering_data.ATTRIBUTES) for answer in answers)
    assert max(count for (_, bullets, _), count in rated.items() if not bullets) == steering_data.MOST_PLAIN
    assert all(rated[verbosity, 0, 0] >= steering_data.MOST_LONG for verbosity in range(5))
    assert sum(count for (_, bullets, _), count in rated.items() if bullets) > 100
    pool = [(row["prompt"], row["response"]) for row in rows("answers.jsonl")]
    assert steering_data.balanced(pool, ()) == pool


def test_the_pipeline_measures_each_of_its_models_with_rules():
    stages = {stage.name: stage for stage in api.compose_pipeline("steerlm_demo")}
    for model in ("sft", "bootstrap", "steerlm2"):
        assert stages[f"{model}_answers"].experiment.job.checkpoint == stages[model].run_id
        assert stages[f"{model}_measured"].experiment.job.checkpoint is None
        assert f"{model}_measured" in stages[f"{model}_adherence"].needs
    assert stages["steerlm2"].experiment.data.steering == stages["sft"].experiment.data.steering
    assert tuple(stages["attribute_model"].experiment.algorithm.attributes) == steering_data.ATTRIBUTES
