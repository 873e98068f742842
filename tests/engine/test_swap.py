"""Two models that share an accelerator: which holds memory, and that going to the host and back changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.engine.policies import FULL, logprobs, pairs, policy
from workbench.algorithms import sft
from workbench.data.packing import Row
from workbench.engine import device
from workbench.engine.step import Policy
from workbench.engine.swap import Stage
from workbench.models.frozen import frozen
from workbench.models.roles.reference import OUTPUTS
from workbench.settings import Model

pytestmark = pytest.mark.usefixtures("alone")


@dataclass
class Alone:
    """A role of one model, as a server has it."""

    policy: Policy
    constant: bool


def models(role: Alone) -> list[Policy]:
    return [role.policy]


def held(model: Policy) -> int:
    """Bytes of its weights, optimizer state and gradients in the accelerator's memory."""
    storages = {
        t.untyped_storage()._cdata: t.untyped_storage().nbytes() for part in model.memory() for t in part if t.device.type == device.current().type
    }
    return sum(storages.values())


@pytest.mark.parametrize("changes", [{}, {"lora": FULL.lora}, {"precision": "bf16"}, {"distributed_optimizer": True}], ids=str)
def test_only_the_model_that_computes_is_on_the_accelerator(changes: dict, tiny_model: Path) -> None:
    settings = Model(source=str(tiny_model)).model_copy(update=changes)
    rows = [Row(row.prefix, row.branches[:1]) for row in pairs(4)]
    alone, other = policy(tiny_model, settings), frozen(settings, tiny_model, 4096, OUTPUTS)
    expected = [(alone.update(rows, sft.loss, step, 0)["loss"], logprobs(other, rows)) for step in range(3)]
    stage = Stage()
    learner = stage.build("learner", lambda: Alone(policy(tiny_model, settings), constant=False), models).policy
    reader = stage.build("reader", lambda: Alone(frozen(settings, tiny_model, 4096, OUTPUTS), constant=True), models).policy
    assert held(reader) > 0 == held(learner) and stage.here == "reader"
    for step, (loss, read) in enumerate(expected):
        stage.enter("learner")
        assert held(learner) > 0 == held(reader)
        assert learner.update(rows, sft.loss, step, 0)["loss"] == loss
        stage.enter("learner")
        stage.enter("reader")
        assert held(reader) > 0 == held(learner)
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(logprobs(reader, rows), read, strict=True))
    assert stage.swaps == 6
    assert stage.bytes_away > 4 * 100_000
    assert stage.seconds > 0
    stage.enter("learner")
    assert learner.update(rows, sft.loss, 3, 0)["loss"] == alone.update(rows, sft.loss, 3, 0)["loss"]
