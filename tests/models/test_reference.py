"""A reference behind PyTriton: what a run stores of it is what the colocated one gives, and its death costs nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.algorithms.runs import begun, steps
from tests.hold import Hold
from tests.waiting import until_step
from workbench.rundir import rollouts
from workbench.rundir.store import State


@pytest.mark.parametrize("rank", [4, 0])
def test_a_served_reference_is_the_colocated_one_and_survives_its_death(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied_model: Path, hold: Hold
) -> None:
    """With adapters the colocated reference is the policy without them, else a frozen copy; served it is the base model."""
    words = ("algorithm=grpo", "algorithm.samples_per_prompt=4", "algorithm.max_steps=4", "algorithm.lr=3e-4", f"model.lora.rank={rank}")
    alone = begun(tmp_path / "alone", monkeypatch, tied_model, *words)
    assert alone.wait(240).state == State.COMPLETED, alone.status.message
    hold.at(2)
    run = begun(tmp_path / "served", monkeypatch, tied_model, *words, "algorithm.served=[reference]")
    until_step(run, 2)
    victims = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[-2:] == [str(run.dir.path), "reference"]]
    assert len(victims) == 1, run.status
    victims[0].kill()
    hold.release()
    assert run.wait(240).state == State.COMPLETED, run.status.message
    assert len(steps(run)) == 4
    for step in range(1, 5):
        for number in range(8):
            ours, theirs = (rollouts.one(each.dir, step, number) for each in (run, alone))
            assert ours is not None and theirs is not None
            assert ours["tokens"] == theirs["tokens"]
            assert np.allclose(ours["reference_logprobs"], theirs["reference_logprobs"], atol=1e-5), (step, number)
    assert steps(run)[3]["init_policy_kl"] > 1e-4  # the policy has left its reference
