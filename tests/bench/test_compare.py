"""The comparison with TRL, its two halves played: what it prints of the processor, and which ratio is of what."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from workbench.bench import compare, processor
from workbench.terminal.cli import app

MACHINE = processor.Processor(
    "A Processor 9000", 2, True, (processor.Rate("fp32", "torch", 40.0, 50.0, 60.0), processor.Rate("fp32", "onednn", 80.0, 200.0, 210.0))
)
SECONDS = {"trl": 12.0, "ours": 2.0, "same_kernels": 4.0}


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which half ran, in order: each step takes SECONDS, the first, which warms up, ten times as long."""
    ran: list[str] = []

    def run(command: list[str]) -> dict[str, Any]:
        settings = json.loads(Path(command[-1]).read_text())
        side = "trl" if command[1].endswith("trl_side.py") else "same_kernels" if settings["same_kernels"] else "ours"
        ran.append(side)
        second = SECONDS[side]
        return {"loss": 0.69, "logprobs_chosen": -1.0, "logprobs_rejected": -2.0, "seconds": [10 * second, second, second], "peak_memory_gib": 1.0}

    monkeypatch.setattr(compare, "_run", run)
    monkeypatch.setattr(compare, "trl_python", lambda console: Path("python-of-trl"))
    monkeypatch.setattr(processor, "examine", lambda threads: MACHINE)
    return ran


def bench(*words: str) -> str:
    done = CliRunner().invoke(app, ["bench", "dpo", "--rounds", "2", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_all_of_it_and_the_same_kernels_are_told_apart(played: list[str]) -> None:
    """12 s against 2 s is 6; against 4 s with torch's own products it is 3: the other half of the difference is kernels."""
    found = json.loads(bench("--json").splitlines()[-1])
    assert played == ["trl", "ours", "same_kernels"] * 2
    assert (found["speedup"], found["speedup_same_kernels"]) == (6.0, 3.0)
    assert found["processor"] == json.loads(json.dumps(dataclasses.asdict(MACHINE)))


def test_the_table_is_headed_by_the_processor(played: list[str]) -> None:
    text = " ".join(bench().split())
    assert "A Processor 9000, 2 threads; the engine's fp32 products are oneDNN's here" in text
    assert "fp32 MKL 50 (40 to 60); fp32 oneDNN 200 (80 to 210)" in text
    assert "speed-up, all of it: 6.00" in text and "(work that is not done): 3.00" in text


def test_bf16_has_the_same_kernels_on_both_sides(played: list[str]) -> None:
    found = json.loads(bench("--json", "--precision", "bf16").splitlines()[-1])
    assert played == ["trl", "ours"] * 2
    assert found["speedup"] == found["speedup_same_kernels"] == 6.0


def test_both_libraries_are_measured_in_both_precisions() -> None:
    found = processor.examine()
    assert found.name == processor.name() != ""
    assert [(rate.precision, rate.library) for rate in found.rates] == [(p, library) for p in ("fp32", "bf16") for library in processor.LIBRARIES]
    assert all(0 < rate.lowest <= rate.median <= rate.highest for rate in found.rates)
