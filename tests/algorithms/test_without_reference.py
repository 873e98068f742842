"""SimPO and CPO: by hand arithmetic, and whole runs on a tiny model (ORPO: test_orpo.py). TRL's values on 200 random inputs: tests/functional/test_golden.py."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests import models
from tests.algorithms.runs import finished, held_out, steps
from workbench.algorithms import cpo, simpo
from workbench.data.packing import Row
from workbench.engine.batch import Batch, Given


def batch() -> Batch:
    """Two pairs: chosen answers of two tokens of probability 1/2, and of one of 1/4; rejected ones of one token of 1/8, and of two of 1/2."""
    logprobs_N = torch.tensor([0.5, 0.5, 0.125, 0.25, 0.5, 0.5], dtype=torch.float64).log().requires_grad_()
    return Batch(Given(logprobs_N), None, torch.tensor([0, 0, 1, 2, 3, 3]), 4, [Row([1], ((2, 3), (4,))), Row([1], ((2,), (3, 4)))])


def test_simpo_of_two_pairs() -> None:
    """Per token: log 1/2 - log 1/8 = 2 log 2, and log 1/4 - log 1/2 = -log 2. With beta 1 and gamma log 2 the arguments are log 2 and -2 log 2:
    -log sigmoid(log 2) = log(1 + 1/2), -log sigmoid(-2 log 2) = log(1 + 4).
    """
    given = batch()
    loss_B, metrics = simpo.loss(given, simpo.Config(beta=1, gamma=math.log(2)))
    assert loss_B.tolist() == pytest.approx([math.log(1.5), math.log(5)])
    assert metrics["rewards_margin"].tolist() == pytest.approx([2 * math.log(2), -math.log(2)])
    assert metrics["accuracy"].tolist() == [1, 0]
    assert metrics["logprobs_chosen"].tolist() == pytest.approx([-math.log(2), -2 * math.log(2)])
    with_sft, _ = simpo.loss(given, simpo.Config(beta=1, gamma=math.log(2), sft_loss_weight=0.5))
    assert with_sft.tolist() == pytest.approx([math.log(1.5) + 0.5 * math.log(2), math.log(5) + math.log(2)])
    loss_B.sum().backward()
    grad = given.logprobs_N.grad
    assert grad is not None
    assert grad.sign().tolist() == [-1, -1, 1, -1, 1, 1]


def test_cpo_of_two_pairs() -> None:
    """Whole answers: 2 log 1/2 - log 1/8 = log 2, and log 1/4 - 2 log 1/2 = 0. With beta 1: log(1 + 1/2) and log 2. The chosen answers' likelihood a token:
    of each answer log 2 and 2 log 2; where every token weighs the same, 3 tokens in 2 answers, 2 log 2 / 1.5 in both.
    """
    preferred = [math.log(1.5), math.log(2)]
    for level, likelihood in (("answer", [1, 2]), ("token", [4 / 3, 4 / 3])):
        cfg = cpo.Config.model_validate({"beta": 1, "sft_level": level, "sft_loss_weight": 0.5})
        loss_B, metrics = cpo.loss(batch(), cfg)
        assert loss_B.tolist() == pytest.approx([each + 0.5 * weight * math.log(2) for each, weight in zip(preferred, likelihood, strict=True)])
        assert metrics["accuracy"].tolist() == [1, 0.5]
        assert metrics["rewards_margin"].tolist() == pytest.approx([math.log(2), 0])
    assert cpo.loss(batch(), cfg, chosen_tokens=3.0)[1]["sft_loss"].tolist() == pytest.approx([2 / 3 * math.log(2)] * 2)


@pytest.mark.parametrize("algorithm", ["simpo", "cpo"])
def test_one_row_a_microbatch_and_two_stages_of_two_ranks_learn_the_same(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of 1 to 6 words: the pairs' losses, and the likelihood of every token, are those of the global batch; held-out margins grow."""
    model = models.save(tmp_path / "even", num_hidden_layers=2)
    rows = [
        {"prompt": f"What is {i}?", "chosen": " ".join(["bread"] * (1 + i % 6)), "rejected": " ".join(["Paris"] * (1 + i % 4))} for i in range(30)
    ]
    words = (f"algorithm={algorithm}", "algorithm.max_steps=3", "validation.samples=0")
    layout = ("model.tensor_parallel=2", "model.pipeline_parallel=2", "backend.ranks_per_node=4")
    expected = finished(rows, tmp_path, monkeypatch, model, *words)
    for more in (("algorithm.micro_batch_tokens=16",), layout):
        run = finished(rows, tmp_path, monkeypatch, model, *words, *more)
        for ours, theirs in zip(steps(run), steps(expected), strict=True):
            for name in ("loss", "preference_loss", "sft_loss", "grad_norm", "rewards_margin"):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), (more, name)
    first, last = (held_out(expected)[i]["rewards_margin"] for i in (0, -1))
    assert last > first
