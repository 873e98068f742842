"""Rows beyond the model's context are told of at the run's start, and as they may come before it."""

from __future__ import annotations

import json
from pathlib import Path

from workbench.data.packing import Row
from workbench.jobs import preflight
from workbench.processes.context import beyond_context
from workbench.settings.spec import compose

SHORT = {"model_type": "llama", "max_position_embeddings": 32}


def model(folder: Path, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**SHORT, **config}))
    return folder


def test_rows_beyond_the_context_are_counted(tmp_path: Path) -> None:
    rows = [Row([1] * 40, learn=[True] * 40), Row([1] * 20, ([1] * 5, [1] * 13)), Row([1] * 10, ([1] * 22,))]
    told = beyond_context(model(tmp_path / "short"), rows, 0)
    assert told.startswith("2 of 3 rows have more tokens than the model's context of 32 (the longest 40)") and "data.max_length=32" in told
    assert beyond_context(model(tmp_path / "short"), rows[2:], 0) == ""
    assert beyond_context(model(tmp_path / "long", rope_scaling={"type": "linear", "factor": 2.0}), rows, 0) == ""
    assert beyond_context(model(tmp_path / "unknown", max_position_embeddings=None), rows, 0) == ""


def test_prompts_count_with_their_answers(tmp_path: Path) -> None:
    told = beyond_context(model(tmp_path / "short"), [Row([1] * 8), Row([1] * 9)], 24)
    assert told.startswith("1 of 2 prompts with answers of up to 24 tokens (max_tokens) have") and "data.max_length=8 or fewer max_tokens" in told


def test_a_preflight_tells_what_may_come(tmp_path: Path) -> None:
    def told(*words: str) -> list[str]:
        found = preflight._context(compose(["experiment=dpo_demo", f"model.source={tmp_path}/short", *words]))
        assert all((each.level, each.key) == ("warning", "data.max_length") for each in found)
        return [each.message for each in found]

    model(tmp_path / "short")
    assert told("data.max_length=33") == ["data.max_length=33 tokens may pass the model's context of 32"]
    assert told("data.max_length=32") == []
    rewards = "algorithm.rewards={short: {program: brevity}}"
    assert told("algorithm=reinforce", rewards, "algorithm.samples_per_prompt=2", "algorithm.max_tokens=10", "data.max_length=23") == [
        "data.max_length=23 + max_tokens=10 tokens may pass the model's context of 32"
    ]
