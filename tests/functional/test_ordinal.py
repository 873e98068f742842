"""Likelihoods of ratings against their formulas, computed otherwise."""

from __future__ import annotations

import math

import pytest
import torch

from workbench.functional import ordinal


def test_cumulative_by_hand() -> None:
    """z = (1, 0, 2): P(level > 0) = sigmoid(1) = 0.731059; the next threshold lies softplus(0) = 0.693147 lower, sigmoid(0.306853) = 0.576117; the last
    softplus(2) = 2.126928 lower still, sigmoid(-1.820075) = 0.139425. Levels: 0.268941, 0.154942, 0.436692, 0.139425."""
    probs = ordinal.log_probabilities(torch.tensor([1.0, 0.0, 2.0]), "cumulative").exp()
    assert probs.tolist() == pytest.approx([0.268941, 0.154942, 0.436692, 0.139425], abs=1e-6)
    assert ordinal.expectation(probs.log()).item() == pytest.approx(0.154942 + 2 * 0.436692 + 3 * 0.139425, abs=1e-5)


@pytest.mark.parametrize("likelihood", ["cumulative", "categorical"])
def test_random_scores_give_probabilities(likelihood: ordinal.Likelihood) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(200, 3, ordinal.outputs(5, likelihood), generator=generator, dtype=torch.float64)
    probs = ordinal.probabilities(scores.flatten(1), 3, 5, likelihood)
    if likelihood == "categorical":
        right = scores.exp() / scores.exp().sum(-1, keepdim=True)
    else:
        above = scores.clone()
        above[..., 1:] = scores[..., :1] - torch.log1p(scores[..., 1:].exp()).cumsum(-1)
        above = 1 / (1 + torch.exp(-above))
        ends = torch.ones_like(above[..., :1])
        right = torch.cat([ends, above], -1) - torch.cat([above, 0 * ends], -1)
    assert torch.allclose(probs, right, atol=1e-12)
    assert torch.allclose(probs.sum(-1), torch.ones(200, 3, dtype=torch.float64))


@pytest.mark.parametrize("size", [60.0, -60.0])
def test_far_scores_have_finite_losses_and_gradients(size: float) -> None:
    scores = torch.full((1, 4), size, requires_grad=True)
    for level in range(5):
        nll = ordinal.negative_log_likelihood(ordinal.log_probabilities(scores, "cumulative"), torch.tensor([float(level)]))
        (gradient,) = torch.autograd.grad(nll.sum(), scores)
        assert nll.isfinite().all()
        assert gradient.isfinite().all()


def test_a_rating_between_levels_counts_both() -> None:
    """P = (0.1, 0.2, 0.7); 1.25 is a quarter of the way to 2: -(0.75 log 0.2 + 0.25 log 0.7) = 1.296247; 2 is -log 0.7 = 0.356675."""
    log_probs = torch.tensor([[0.1, 0.2, 0.7], [0.1, 0.2, 0.7]]).log()
    nll = ordinal.negative_log_likelihood(log_probs, torch.tensor([1.25, 2.0]))
    assert nll.tolist() == pytest.approx([-(0.75 * math.log(0.2) + 0.25 * math.log(0.7)), 0.356675], abs=1e-6)
