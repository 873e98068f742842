"""The Kullback-Leibler divergence of the policy from the reference, estimated from sampled tokens, and its adaptive weight."""

from __future__ import annotations

from torch import Tensor


def kl(logprobs: Tensor, reference: Tensor, estimator: str, clamped: bool = False) -> Tensor:
    """One value a token, of the same shape (Schulman 2020, "Approximating KL Divergence"), with d = logprob - reference:
    k1 is d, abs is |d|, k2 is d^2 / 2, k3 is exp(-d) - 1 + d.

    `clamped` bounds k3 as verl does: d within 20, and the estimate within 10, beyond which there is no gradient. The others grow slowly and are as they are.
    """
    difference = logprobs - reference
    if estimator == "k1":
        return difference
    if estimator == "abs":
        return difference.abs()
    if estimator == "k2":
        return 0.5 * difference.square()
    assert estimator == "k3", estimator
    if clamped:
        difference = difference.clamp(-20, 20)
    estimate = (-difference).exp() - 1 + difference
    return estimate.clamp(-10, 10) if clamped else estimate


def adaptive(coefficient: float, observed: float, target: float, horizon: int, batch: int) -> float:
    """The next coefficient: times 1 + clip(observed / target - 1, -0.2, 0.2) batch / horizon (Ziegler et al., arXiv 1909.08593, section 2.2)."""
    error = min(0.2, max(-0.2, observed / target - 1))
    return coefficient * (1 + error * batch / horizon)
