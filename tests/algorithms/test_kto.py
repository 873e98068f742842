"""KTO's loss on a batch written out by hand, its mismatched pairs, and a real run of the tiny model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.algorithms.batches import KTO_ROWS, kto_batch
from tests.algorithms.runs import finished, held_out, steps
from workbench.algorithms import kto
from workbench.data.packing import Row, targets
from workbench.engine.batch import Batch, Given

LOGPROBS = {0: [-1.0, -2.0, -1.0], 1: [-3.0, -0.5, -0.5]}
"""Log-ratios: row 0 own 0.5 + 0.5 = 1, other 1; row 1 own -1, other 0.5 + 0.5 = 1."""


def test_own_answers() -> None:
    """beta 0.5, z0 0.5. Row 0, desirable, r = 1: 1 - sigmoid(0.25) = 0.437823, reward 0.5. Row 1, undesirable, r = -1, weight 2:
    2 (1 - sigmoid(0.5 * 1.5)) = 2 * 0.320821 = 0.641642, reward -0.5. Both are on their side of z0.
    """
    own, _ = kto.split(KTO_ROWS)
    loss, metrics = kto.loss(kto_batch(own, [-1.0, -2.0, -3.0]), kto.Config(beta=0.5, undesirable_weight=2), kl=0.5)
    assert loss.tolist() == pytest.approx([0.437823, 0.641642], abs=1e-6)
    assert metrics["rewards_chosen_mean"].tolist() == [0.5]
    assert metrics["rewards_rejected_mean"].tolist() == [-0.5]
    assert metrics["accuracy"].tolist() == [1, 1]
    assert metrics["kl"].tolist() == [0.5, 0.5]


def test_held_out_rows_bring_their_own_kl() -> None:
    """With both branches z0 is the mean of the mismatched log-ratios 1 and 1, and the rest is as with that z0 given."""
    own, _ = kto.split(KTO_ROWS)
    cfg = kto.Config(beta=0.5)
    both, metrics = kto.loss(kto_batch(KTO_ROWS, LOGPROBS[0] + LOGPROBS[1]), cfg)
    given, _ = kto.loss(kto_batch(own, [-1.0, -2.0, -3.0]), cfg, kl=1.0)
    assert both.tolist() == given.tolist()
    assert metrics["kl"].tolist() == [1, 1]
    assert metrics["accuracy"].tolist() == [0.5, 1]  # the desirable one is just at z0


def test_the_reference_itself_is_at_the_middle() -> None:
    """Where policy = reference, every ratio and z0 are 0: loss lambda / 2, accuracy a coin toss."""
    same = np.concatenate([row.reference_logprobs_N for row in KTO_ROWS if row.reference_logprobs_N is not None]).tolist()
    loss, metrics = kto.loss(kto_batch(KTO_ROWS, same), kto.Config(desirable_weight=3))
    assert loss.tolist() == [1.5, 0.5]
    assert metrics["accuracy"].tolist() == [0.5, 0.5]


def test_no_gradient_through_the_kl() -> None:
    """The mismatched answers' log-probabilities move z0, but are not learnt from."""
    logprobs = torch.tensor(LOGPROBS[0] + LOGPROBS[1], requires_grad=True)
    found = kto_batch(KTO_ROWS, logprobs.tolist())
    loss, _ = kto.loss(Batch(Given(logprobs), found.reference_logprobs_N, found.sequence_N, found.num_sequences, KTO_ROWS), kto.Config())
    loss.sum().backward()
    assert logprobs.grad is not None
    assert (logprobs.grad != 0).tolist() == [True, True, False, True, False, False]


def test_split_keeps_each_answers_reference() -> None:
    own, other = kto.split(KTO_ROWS)
    for row, parts in zip(KTO_ROWS, zip(own, other, strict=True), strict=True):
        assert row.reference_logprobs_N is not None
        assert np.concatenate([part.reference_logprobs_N for part in parts]).tolist() == row.reference_logprobs_N.tolist()
        assert np.concatenate([targets(part) for part in parts]).tolist() == targets(row).tolist()
    assert [row.branches for row in other] == [((5,),), ((3, 4),)]


def test_training_measures_the_kl_over_the_global_batch_first() -> None:
    """Mean -2 counts as 0; mean 0.25 goes into the loss; the margin is reported where both sides are there."""
    seen = []

    class Stage:
        def __init__(self, kl: float):
            self.kl = kl

        def batches(self) -> Any:
            yield KTO_ROWS

        def evaluate(self, rows: Sequence[Row], loss: Callable[..., Any]) -> dict[str, float]:
            assert [len(row.branches) for row in rows] == [1, 1]
            assert loss(kto_batch(rows, [-1.0, -0.5, -0.5]), kto.Config())[1]["kl"].tolist() == [1, 1]
            return {"kl": self.kl}

        def update(self, rows: Sequence[Row], loss: Callable[..., Any]) -> dict[str, float]:
            seen.append(loss(kto_batch(rows, [-1.0, -2.0, -3.0]), kto.Config())[1]["kl"][0].item())
            return {"rewards_chosen_mean": 2.0, "rewards_rejected_mean": 0.5}

    (metrics,) = [*kto.train(kto.Config(), Stage(-2.0))]  # type: ignore[arg-type]
    assert metrics["rewards_margin"] == 1.5
    assert [*kto.train(kto.Config(), Stage(0.25))] == [metrics]  # type: ignore[arg-type]
    assert seen == [0.0, 0.25]


def test_a_run(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of one word are wanted, of another not. The first loss is 1/2, as policy and reference are one; then the rewards part."""
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": " ".join(rng.choice(["the", "of", "user", "made"], 5)) + f" {i}", "completion": " ".join([word] * 6), "label": wanted}
        for i in range(40)
        for word, wanted in (("bread", True), ("Paris", False))
    ]
    run = finished(rows, tmp_path, monkeypatch, tiny_model, "algorithm=kto", "algorithm.max_steps=12", "algorithm.lr=1e-3")
    first, last = held_out(run)[0], held_out(run)[-1]
    assert steps(run)[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert first["accuracy"] == pytest.approx(0.5)
    assert last["rewards_chosen_mean"] > last["rewards_rejected_mean"]
    assert last["accuracy"] > 0.9
    assert steps(run)[-1]["rewards_margin"] > 0.1
    assert all(metrics["kl"] >= 0 for metrics in steps(run))
