"""Ranking and regression losses, by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.functional import reward

CHOSEN, REJECTED = torch.tensor([1.5, -0.5]), torch.tensor([0.5, 0.5])
MARGIN = torch.tensor([2.0, 0.5])
scores = st.floats(-20, 20)


def test_ranking() -> None:
    """Differences 1 and -1: -log sigmoid(1) = 0.313262, -log sigmoid(-1) = 1.313262."""
    assert reward.ranking(CHOSEN, REJECTED).tolist() == pytest.approx([0.313262, 1.313262], abs=1e-6)


def test_margin_inside_the_sigmoid() -> None:
    """1 - 2 = -1 and -1 - 0.5 = -1.5: -log sigmoid(-1) = 1.313262, -log sigmoid(-1.5) = 1.701413."""
    assert reward.ranking_margin(CHOSEN, REJECTED, MARGIN).tolist() == pytest.approx([1.313262, 1.701413], abs=1e-6)


def test_margin_outside_the_sigmoid() -> None:
    """2 * 0.313262 = 0.626523 and 0.5 * 1.313262 = 0.656631."""
    assert reward.ranking_scaled(CHOSEN, REJECTED, MARGIN).tolist() == pytest.approx([0.626523, 0.656631], abs=1e-6)


@given(scores, scores)
def test_neutral_margins_are_the_plain_loss(chosen: float, rejected: float) -> None:
    """Scaled by 1, and with a margin of 0."""
    c, r = torch.tensor([chosen]), torch.tensor([rejected])
    plain = reward.ranking(c, r)
    assert reward.ranking_scaled(c, r, torch.ones(1)).equal(plain)
    assert reward.ranking_margin(c, r, torch.zeros(1)).equal(plain)


@given(scores, scores, st.floats(-5, 5))
def test_only_the_difference_counts(chosen: float, rejected: float, shift: float) -> None:
    """The same added to both scores changes nothing; exp(-loss) of the two orders are probabilities that sum to 1."""
    c, r = torch.tensor([chosen], dtype=torch.double), torch.tensor([rejected], dtype=torch.double)
    assert reward.ranking(c + shift, r + shift).item() == pytest.approx(reward.ranking(c, r).item(), abs=1e-9)
    assert ((-reward.ranking(c, r)).exp() + (-reward.ranking(r, c)).exp()).item() == pytest.approx(1)


def test_squared_error_over_what_is_present() -> None:
    """Row 1: (3 - 4)^2 = 1 and (1 - 3)^2 = 4. Row 2 has the second rating alone: (2 - 2.5)^2 = 0.25. Row 3 has none. The mean is 5.25 / 3."""
    predicted = torch.tensor([[3.0, 1.0], [9.0, 2.0], [5.0, 5.0]], requires_grad=True)
    targets = torch.tensor([[4.0, 3.0], [torch.nan, 2.5], [torch.nan, torch.nan]])
    present = torch.tensor([[True, True], [False, True], [False, False]])
    loss = reward.masked_squared_error(predicted, targets, present)
    assert loss.tolist() == [1.0, 4.0, 0.25]
    loss.sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [[-2.0, -4.0], [0.0, -1.0], [0.0, 0.0]]
