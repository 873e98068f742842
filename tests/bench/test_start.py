"""`workbench bench start` on the tiny model: each phase is a time of the runs it made, in their order."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from workbench.bench import start
from workbench.terminal.cli import app


def test_each_phase_follows_the_one_before() -> None:
    result = CliRunner().invoke(app, ["bench", "start", "--model", "tiny", "--ranks", "1", "--ranks", "2", "--rounds", "1", "--json"])
    assert result.exit_code == 0, result.output
    starts = [start.Start(**each) for each in json.loads(result.stdout)]
    assert [(each.model, each.ranks) for each in starts] == [("tiny", 1), ("tiny", 2)]
    for each in starts:
        assert 0 < each.rank_s <= each.data_s <= each.ready_s < each.step_s
        assert each.checkpoint_s > 0 and each.end_s > 0


def test_a_run_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="the run of /nowhere on 1 ranks failed"):
        start.measure(["/nowhere"], [1], 1, 0, True, start.Console())
