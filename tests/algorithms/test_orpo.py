"""ORPO by hand arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.algorithms import orpo
from workbench.data.packing import Row
from workbench.engine.batch import Batch, Given


def test_levels() -> None:
    """Chosen answers of 2 and 1 tokens, of probability 1/2 each token: by token the likelihood's terms are 2 log 2 / 1.5 and log 2 / 1.5, whose mean is
    that of three tokens, log 2. Whole answers have p = 1/4, 1/5 and odds 1/3, 1/4.
    """
    logprobs_N = torch.tensor([0.5, 0.5, 0.2, 0.5, 0.2]).log()
    batch = Batch(Given(logprobs_N), None, torch.tensor([0, 0, 1, 2, 3]), 4, [Row([1], ((2, 3), (4,))), Row([1], ((2,), (4,)))])
    cfg = orpo.Config(length_normalized=False, sft_level="token", odds_weight=0.0)
    for given in (1.5, None):
        loss_B, metrics = orpo.loss(batch, cfg, given)
        assert loss_B.tolist() == pytest.approx([2 * math.log(2) / 1.5, math.log(2) / 1.5])
    assert loss_B.mean().item() == pytest.approx(math.log(2))
    assert metrics["rewards_margin"][0].item() == pytest.approx(math.log(4 / 3))


def test_loss_of_one_pair() -> None:
    """Chosen: two tokens of probability 1/2, so p = 1/2 and odds = 1. Rejected: one token of probability 1/5, odds = 1/4.

    margin = log 1 - log 1/4 = log 4; -log sigmoid(log 4) = log(1 + 1/4) = log 1.25; loss = log 2 + 0.1 log 1.25.
    """
    logprobs_N = torch.tensor([0.5, 0.5, 0.2]).log().requires_grad_()
    batch = Batch(Given(logprobs_N), None, torch.tensor([0, 0, 1]), 2, [Row([1], ((2, 3), (4,)))])
    loss_B, metrics = orpo.loss(batch, orpo.Config())
    assert loss_B.tolist() == pytest.approx([math.log(2) + 0.1 * math.log(1.25)])
    assert metrics["rewards_margin"].tolist() == pytest.approx([math.log(4)])
    assert metrics["accuracy"].tolist() == [1]
    loss_B.sum().backward()
    assert logprobs_N.grad is not None
    assert (logprobs_N.grad[:2] < 0).all() and logprobs_N.grad[2] > 0
