"""The job kind that measures adherence, as rank 0 does it; it starts nothing and reads no model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from workbench.engine import parallel
from workbench.processes.kinds import adhere
from workbench.rundir import adherence

ROWS = [
    {"prompt": f"q{p}", "response": "word " * (level + 1), "requested": {"verbosity": level}, "attributes": {"verbosity": level}}
    for p in range(3)
    for level in (0, 2, 4)
]


class Rank:
    def __init__(self, folder: Path, rows: str):
        self.run = SimpleNamespace(path=folder)
        self.spec = SimpleNamespace(job=adhere.Config(resamples=100), data=SimpleNamespace(train=rows))
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, kind: str, **values: object) -> None:
        self.events.append((kind, values))

    def warn(self, message: str) -> None:
        self.emit("warning", message=message)


def test_it_leaves_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "rank", lambda: 0)
    rows = tmp_path / "annotated.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    rank = Rank(tmp_path, str(rows))
    adhere.work(rank)  # type: ignore[arg-type]
    measured = adherence.read(tmp_path / adherence.FILE)
    assert [level.words.value for level in measured.of("verbosity").levels] == [1, 3, 5]
    assert ("step", {"step": 1, "metrics": {"mae_verbosity": 0, "spearman_verbosity": pytest.approx(1)}}) in rank.events
    assert rank.events[-1] == ("end", {"reason": "completed", "step": 1})


def test_a_set_of_the_hub_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "rank", lambda: 0)
    with pytest.raises(ValueError, match=r"data\.train=nvidia/HelpSteer: expected a file of annotated answers"):
        adhere.work(Rank(tmp_path, "nvidia/HelpSteer"))  # type: ignore[arg-type]
