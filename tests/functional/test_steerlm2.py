"""SteerLM 2's loss against the published formula, written out group by group in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.functional.steerlm2 import steerlm2


def test_two_answers_by_hand() -> None:
    """One prompt, answers of 1 and 2 tokens. log Q = (-1, -2), log Q' = (-1, -3): b = softmax(0, 1) = (0.268941, 0.731059). log P(a|x,y) + log P(y|x) - log Q'
    = (-1 - 2 + 1, -2 - 3 + 3) = (-2, -2): w = (0.5, 0.5). Sum (w - b) NLL = 0.231059 * 1 - 0.231059 * 2 = -0.231059, by 1.5 tokens: -0.154039.
    KL(w || b) = 0.5 log(0.5 / 0.268941) + 0.5 log(0.5 / 0.731059) = 0.120115."""
    loss, distance = steerlm2(
        torch.tensor([-1.0, -0.5, -1.5]),
        torch.tensor([-1.0, -1.5, -1.5]),
        torch.tensor([-1.0, -2.0]),
        torch.tensor([-2.0, -3.0]),
        torch.tensor([0, 1, 1]),
        torch.tensor([0, 0]),
        1,
    )
    assert loss.item() == pytest.approx(-0.154039, abs=1e-6)
    assert distance.item() == pytest.approx(0.120115, abs=1e-6)


def test_random_groups_of_unequal_sizes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = rng.integers(2, 5, rng.integers(1, 4))
        group = np.repeat(np.arange(len(sizes)), sizes)
        tokens = rng.integers(1, 9, len(group))
        sequence = np.repeat(np.arange(len(group)), tokens)
        policy, proposal = -rng.exponential(size=(2, len(sequence)))
        attributes, base = -9 * rng.exponential(size=(2, len(group)))
        logprobs = torch.tensor(policy, requires_grad=True)
        given = [torch.tensor(each) for each in (proposal, attributes, base, sequence, group)]
        loss, distance = steerlm2(logprobs, *given, len(sizes))
        (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
        sums, proposed = (np.bincount(sequence, each) for each in (policy, proposal))
        for g in range(len(sizes)):
            here = group == g
            w, b = (np.exp(x[here] - x[here].max()) for x in (attributes + base - proposed, sums - proposed))
            w, b, mean = w / w.sum(), b / b.sum(), tokens[here].mean()
            assert loss[g].item() == pytest.approx(((w - b) * -sums[here]).sum() / mean, abs=1e-9)
            known = w > 0
            assert distance[g].item() == pytest.approx((w[known] * np.log(w[known] / b[known])).sum(), abs=1e-9)
            assert np.allclose(gradient.numpy()[here[sequence]], np.repeat(-(w - b) / mean, tokens[here]), atol=1e-9)
