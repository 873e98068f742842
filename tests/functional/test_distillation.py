"""Divergences on a teacher's likeliest tokens and a bucket: by hand, against sums of probabilities, and against the whole vocabulary's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from workbench.functional.distillation import divergence

KINDS = ("forward_kl", "reverse_kl", "jensen_shannon")


def logs(*probabilities: float) -> tuple[Tensor, Tensor]:
    """One prediction: its tokens' and the bucket's, the last."""
    *tokens, rest = probabilities
    return torch.tensor([tokens]).log(), torch.tensor([rest]).log()


def test_by_hand() -> None:
    """P = (1/2, 1/4, rest 1/4), Q = (1/4, 1/4, rest 1/2). KL(P || Q) = 1/2 log 2 + 0 + 1/4 log 1/2 = 0.25 log 2 = KL(Q || P), by symmetry.
    M = (3/8, 1/4, 3/8): KL(P || M) = 1/2 log 4/3 + 1/4 log 2/3 = KL(Q || M) = 0.042475. With b = 1/4: M = (5/16, 1/4, 7/16),
    1/4 (1/2 log 8/5 + 1/4 log 4/7) + 3/4 (1/4 log 4/5 + 1/2 log 8/7) = 0.032009."""
    student, teacher = logs(0.25, 0.25, 0.5), logs(0.5, 0.25, 0.25)
    values = [divergence(*student, *teacher, kind).item() for kind in KINDS]
    assert values == pytest.approx([0.25 * math.log(2), 0.25 * math.log(2), 0.042475], abs=1e-6)
    assert divergence(*student, *teacher, "jensen_shannon", 0.25).item() == pytest.approx(0.032009, abs=1e-6)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Of probabilities, not of their logarithms: an outcome that p does not have adds nothing."""
    return np.array([sum(a * math.log(a / b) for a, b in zip(*row, strict=True) if a > 0) for row in zip(p.tolist(), q.tolist(), strict=True)])


def expected(kind: str, p: np.ndarray, q: np.ndarray, share: float) -> np.ndarray:
    """Of probabilities [N, V]. Jensen-Shannon by entropies: H(M) - b H(P) - (1 - b) H(Q)."""
    if kind == "jensen_shannon":
        p_entropy, q_entropy, mixed = (-kl(each, np.ones_like(each)) for each in (p, q, share * p + (1 - share) * q))
        return mixed - share * p_entropy - (1 - share) * q_entropy
    return kl(p, q) if kind == "forward_kl" else kl(q, p)


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The log-probabilities of a student and a teacher [N, V], sharp or flat."""
    logits = rng.normal(size=(2, int(rng.integers(1, 5)), int(rng.integers(2, 30)))) * rng.choice([0.3, 2, 8])
    student, teacher = logits - np.logaddexp.reduce(logits, axis=2, keepdims=True)
    return student, teacher


def bucketed(logprobs: np.ndarray, order: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k of an order, and the log of the others' mass."""
    sorted_ = np.take_along_axis(logprobs, order, 1)
    with np.errstate(divide="ignore"):
        return sorted_[:, :k], np.log(np.exp(sorted_[:, k:]).sum(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_formula_on_200_random_inputs(kind: str) -> None:
    """Equal to that of the buckets; of the whole vocabulary where k is all of it, below that otherwise, and never less with more tokens."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        student, teacher = draw(rng)
        share, size = float(rng.uniform(0.05, 0.95)), student.shape[1]
        order = np.argsort(-teacher, axis=1)
        whole, before = expected(kind, np.exp(teacher), np.exp(student), share), np.zeros(len(student))
        for k in sorted({1, size // 2, size - 1, size} - {0}):
            (q, q_rest), (p, p_rest) = bucketed(student, order, k), bucketed(teacher, order, k)
            got = divergence(torch.tensor(q), torch.tensor(q_rest), torch.tensor(p), torch.tensor(p_rest), kind, share).numpy()
            p_all, q_all = (np.concatenate([np.exp(each), np.exp(rest)[:, None]], 1) for each, rest in ((p, p_rest), (q, q_rest)))
            np.testing.assert_allclose(got, expected(kind, p_all, q_all, share), rtol=1e-9, atol=1e-12)
            assert (got <= whole + 1e-12).all() and (got >= before - 1e-12).all()
            before = got
        np.testing.assert_allclose(before, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_difference_is_zero_with_no_gradient(kind: str) -> None:
    tokens, rest = logs(0.5, 0.2, 0.3)
    student = tokens.clone().requires_grad_()
    value = divergence(student, rest, tokens, rest, kind)
    assert value.item() == pytest.approx(0, abs=1e-7)
    # Of logits, whose probabilities sum to 1: the gradient of the log-probabilities is a multiple of the probabilities.
    logits = tokens.clone().requires_grad_()
    with_rest = torch.cat([logits, rest[:, None]], 1).log_softmax(1)
    divergence(with_rest[:, :2], with_rest[:, 2], tokens, rest, kind).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_rest", [True, False])
def test_the_gradient_is_that_of_differences(kind: str, has_rest: bool) -> None:
    """Where there are no other tokens the bucket is -inf on both sides, and nothing is NaN."""
    torch.manual_seed(0)
    teacher = torch.randn(3, 5, dtype=torch.float64).log_softmax(1)
    none = torch.full((3,), -torch.inf, dtype=torch.float64)

    def value(logits: Tensor) -> Tensor:
        student = logits.log_softmax(1)
        if has_rest:
            return divergence(student[:, :4], student[:, 4], teacher[:, :4], teacher[:, 4], kind, 0.3)
        return divergence(student, none, teacher, none, kind, 0.3)

    assert torch.autograd.gradcheck(value, torch.randn(3, 5, dtype=torch.float64, requires_grad=True))


def test_mass_that_only_one_has() -> None:
    """The teacher has no other tokens, the student has: forward KL and Jensen-Shannon are finite with finite gradients, reverse KL is infinite, and says so."""
    tokens, rest = logs(0.25, 0.25, 0.5)
    sure, none = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([-torch.inf])
    for kind in ("forward_kl", "jensen_shannon"):
        student, others = tokens.clone().requires_grad_(), rest.clone().requires_grad_()
        value = divergence(student, others, sure, none, kind)
        gradients = torch.autograd.grad(value.sum(), (student, others))
        assert value.isfinite().all() and all(each.isfinite().all() for each in gradients)
    assert divergence(tokens, rest, sure, none, "forward_kl").item() == pytest.approx(0.75 * math.log(3), abs=1e-6)
    assert divergence(tokens, rest, sure, none, "reverse_kl").isposinf().all()
