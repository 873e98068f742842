"""Clipped losses by hand, and by what must hold whatever the numbers."""

import math

import pytest
import torch

from workbench.functional import policy_gradient

RATIOS = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1])
GAINS = torch.tensor([2.0, 2.0, -2.0, -2.0, 2.0])


def test_clipped() -> None:
    """min(rho A, clip(rho, 0.8, 1.2) A), negated.

    rho 1.5, A 2: min(3, 2.4): -2.4, clipped. rho 0.5, A 2: min(1, 1.6): -1. rho 1.5, A -2: min(-3, -2.4): 3.
    rho 0.5, A -2: min(-1, -1.6): 1.6, clipped. rho 1.1, A 2: -2.2.
    """
    loss, ratio, clipped = policy_gradient.clipped(RATIOS.log(), torch.zeros(5), GAINS, 0.2, 0.2)
    assert loss.tolist() == pytest.approx([-2.4, -1.0, 3.0, 1.6, -2.2])
    assert ratio.tolist() == pytest.approx(RATIOS.tolist())
    assert clipped.tolist() == [True, False, False, True, False]


def test_clip_higher() -> None:
    """With 0.6 above: rho 1.5 is within 1.6, so -1.5 * 2 = -3; below it is 0.8 still."""
    loss, _, clipped = policy_gradient.clipped(RATIOS.log(), torch.zeros(5), GAINS, 0.2, 0.6)
    assert loss.tolist() == pytest.approx([-3.0, -1.0, 3.0, 1.6, -2.2])
    assert clipped.tolist() == [False, False, False, True, False]


def test_dual_clip() -> None:
    """c 3, clip 0.2. rho 5, A -2: min(-10, -2.4) = -10, but at least 3 * -2 = -6: loss 6, clipped. rho 2, A -2: -4 is above -6: loss 4.

    rho 5, A 2: as without, 1.2 * 2: -2.4, clipped.
    """
    logprobs = torch.tensor([5.0, 2.0, 5.0]).log().requires_grad_()
    gains = torch.tensor([-2.0, -2.0, 2.0])
    loss, _, clipped = policy_gradient.clipped(logprobs, torch.zeros(3), gains, 0.2, 0.2, dual_clip=3.0)
    assert loss.tolist() == pytest.approx([6.0, 4.0, -2.4])
    assert clipped.tolist() == [True, False, True]
    loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0.0, 4.0, 0.0])


def test_clipped_tokens_have_no_gradient() -> None:
    """Elsewhere it is that of rho A: -rho A."""
    logprobs = RATIOS.log().requires_grad_()
    loss, _, clipped = policy_gradient.clipped(logprobs, torch.zeros(5), GAINS, 0.2, 0.2)
    loss.sum().backward()
    assert logprobs.grad is not None
    assert torch.allclose(logprobs.grad, (-RATIOS * GAINS).where(~clipped, 0))


def test_on_policy_it_is_the_policy_gradient() -> None:
    """Old = new: the ratio is 1, the loss -A, its gradient -A grad log p (REINFORCE), nothing is clipped."""
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss, ratio, clipped = policy_gradient.clipped(logprobs, logprobs.detach(), torch.tensor([3.0, -0.5]), 0.2, 0.2)
    assert (loss.tolist(), ratio.tolist(), clipped.tolist()) == ([-3.0, 0.5], [1.0, 1.0], [False, False])
    loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-3.0, 0.5]


def test_clipped_value() -> None:
    """Old value 0, return 1, clip 0.2. v 0.1: 0.5 * 0.9^2 = 0.405. v 0.9: bounded to 0.2, the worse: 0.5 * 0.8^2 = 0.32.

    v -0.5: itself the worse (bounded to -0.2): 0.5 * 1.5^2 = 1.125. v 3: bounded to 0.2, 0.8 off; itself 2 off: 0.5 * 4 = 2.
    """
    found = policy_gradient.clipped_value(torch.tensor([0.1, 0.9, -0.5, 3.0]), torch.zeros(4), torch.ones(4), 0.2)
    assert found.tolist() == pytest.approx([0.405, 0.32, 1.125, 2.0])


def test_a_wide_clip_is_the_squared_error() -> None:
    values, old, returns = (torch.randn(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in range(3))
    assert torch.allclose(policy_gradient.clipped_value(values, old, returns, 100.0), 0.5 * (values - returns).square())
    assert (policy_gradient.clipped_value(values, old, returns, 0.1) >= 0.5 * (values - returns).square()).all()


def test_truncated_importance() -> None:
    """exp(log 3 - log 2) = 1.5; exp(log 9) = 9, capped at 2; the same policy weighs 1. No gradient passes."""
    proximal = torch.tensor([math.log(3), math.log(9), -1.0], requires_grad=True)
    weights = policy_gradient.truncated_importance(proximal, torch.tensor([math.log(2), 0.0, -1.0]), 2.0)
    assert weights.tolist() == pytest.approx([1.5, 2.0, 1.0])
    assert not weights.requires_grad
