"""The decoding benchmark on its tiny model: what it measures is the same on both sides."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from workbench.bench import decode
from workbench.terminal.cli import app


def test_prompts_and_limits_are_the_same_each_time() -> None:
    prompts = decode.questions(100)
    assert prompts == decode.questions(100)
    assert len(prompts) == 64
    limits = [prompt.max_tokens or 0 for prompt in prompts]
    assert (min(limits) >= 8, max(limits) <= 128, len(set(limits)) > 30) == (True, True, True)
    assert all(8 <= len(prompt.tokens) <= 64 and max(prompt.tokens) < 100 for prompt in prompts)


def test_both_sides_give_all_tokens_and_a_ratio_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the length, to be quick. The benchmark itself asserts that each side gives every token that it was asked for."""
    monkeypatch.setattr(decode, "LONGEST", 40)
    done = CliRunner().invoke(app, ["bench", "decode", "--model", "tiny", "--rounds", "2", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])["tiny"]
    assert found["tokens"] == sum(prompt.max_tokens or 0 for prompt in decode.questions(4096))
    for i, ratio in enumerate(found["ratio"]["rounds"]):
        assert ratio == pytest.approx(found["embedded"]["rounds"][i] / found["transformers"]["rounds"][i])
    assert found["ratio"]["min"] <= found["ratio"]["median"] <= found["ratio"]["max"]
