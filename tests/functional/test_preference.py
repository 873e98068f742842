"""The family's losses, by hand: D = 2 and D = -1, beta = 0.5."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.functional import preference

DELTA = torch.tensor([2.0, -1.0])


def test_dpo() -> None:
    """beta D = 1 and -0.5: -log sigmoid(1) = 0.313262, -log sigmoid(-0.5) = 0.974077."""
    assert preference.dpo(DELTA, 0.5).tolist() == pytest.approx([0.313262, 0.974077], abs=1e-6)


def test_cdpo() -> None:
    """Smoothing 0.1: 0.9 * 0.313262 + 0.1 * -log sigmoid(-1) = 0.281935 + 0.1 * 1.313262 = 0.413262."""
    assert preference.dpo(DELTA, 0.5, 0.1)[0].item() == pytest.approx(0.413262, abs=1e-6)


def test_ipo() -> None:
    """1 / (2 beta) = 1: (2 - 1)^2 = 1, (-1 - 1)^2 = 4."""
    assert preference.ipo(DELTA, 0.5).tolist() == [1.0, 4.0]


def test_hinge() -> None:
    """1 - beta D: 1 - 1 = 0, 1 + 0.5 = 1.5."""
    assert preference.hinge(DELTA, 0.5).tolist() == [0.0, 1.5]


def test_rpo_sq() -> None:
    """eta 2, reward differences 1 and 0: (1 - 2)^2 = 1, (-0.5 - 0)^2 = 0.25."""
    assert preference.rpo_sq(DELTA, torch.tensor([1.0, 0.0]), 0.5, 2.0).tolist() == [1.0, 0.25]


def test_rpo_kl() -> None:
    """p = sigmoid(eta Dr) = sigmoid(2) = 0.880797, q = sigmoid(beta D) = sigmoid(1) = 0.731059.

    KL(p||q) = 0.880797 ln(0.880797 / 0.731059) + 0.119203 ln(0.119203 / 0.268941) = 0.067131, NeMo-Aligner's backward; KL(q||p) = 0.082608.
    """
    args = (DELTA[:1], torch.tensor([1.0]), 0.5, 2.0)
    assert preference.rpo_kl(*args, forward=False).item() == pytest.approx(0.067131, abs=1e-6)
    assert preference.rpo_kl(*args, forward=True).item() == pytest.approx(0.082608, abs=1e-6)


@given(st.floats(-20, 20), st.floats(0.01, 2))
def test_identities(delta: float, beta: float) -> None:
    """Swapping chosen and rejected: dpo(D) - dpo(-D) = -beta D. RPO is zero where the margins agree. Half smoothing is symmetric."""
    D = torch.tensor([delta], dtype=torch.float64)
    assert (preference.dpo(D, beta) - preference.dpo(-D, beta)).item() == pytest.approx(-beta * delta, abs=1e-9)
    assert preference.dpo(D, beta, 0.5).item() == pytest.approx(preference.dpo(-D, beta, 0.5).item())
    assert preference.rpo_kl(D, beta * D, beta, 1.0, forward=True).item() == pytest.approx(0, abs=1e-9)
    assert preference.rpo_sq(D, beta * D, beta, 1.0).item() == pytest.approx(0, abs=1e-9)


def test_kto() -> None:
    """beta 0.5, z0 = 1. Desirable, r = 2: weight 2, 2 (1 - sigmoid(0.5)) = 2 * 0.377541 = 0.755081.
    Undesirable, r = -1: weight 0.5, 0.5 (1 - sigmoid(0.5 * (1 - -1))) = 0.5 * 0.268941 = 0.134471.
    """
    loss = preference.kto(DELTA, torch.tensor([1.0, 0.0]), 1.0, 0.5, 2.0, 0.5)
    assert loss.tolist() == pytest.approx([0.755081, 0.134471], abs=1e-6)


@given(st.floats(-20, 20), st.floats(0, 5))
def test_kto_without_kl_is_a_sigmoid(ratio: float, beta: float) -> None:
    """With z0 = 0 the two sides are mirror images: desirable(r) = undesirable(-r) = sigmoid(-beta r), and their sum at one r is 1."""
    r = torch.tensor([ratio], dtype=torch.double)
    yes, no = preference.kto(r, torch.tensor([True]), 0.0, beta), preference.kto(r, torch.tensor([False]), 0.0, beta)
    assert yes.item() == pytest.approx(torch.sigmoid(-beta * r).item())
    assert preference.kto(-r, torch.tensor([False]), 0.0, beta).item() == pytest.approx(yes.item())
    assert (yes + no).item() == pytest.approx(1)


def test_kto_reference_point() -> None:
    """The mean of 3 and -1 is 1; that of 1 and -3, below 0, counts as 0. Neither is differentiated."""
    ratios = torch.tensor([3.0, -1.0], requires_grad=True)
    assert preference.kto_reference_point(ratios).item() == 1.0
    assert preference.kto_reference_point(-ratios).item() == 0.0
    assert not preference.kto_reference_point(ratios).requires_grad
