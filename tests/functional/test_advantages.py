"""Advantages and KL by hand, and by what must hold whatever the numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.functional import advantages, kl

NUMBERS = st.floats(-5, 5, width=32)
REWARDS, VALUES = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.25, 0.75]])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gae() -> None:
    """gamma 1, lambda 0.5, rewards 0 0 1, values 0.5 0.25 0.75.

    delta: 1 - 0.75 = 0.25; 0 + 0.75 - 0.25 = 0.5; 0 + 0.25 - 0.5 = -0.25.
    A: 0.25; 0.5 + 0.5 * 0.25 = 0.625; -0.25 + 0.5 * 0.625 = 0.0625. Returns A + V: 0.5625, 0.875, 1.
    """
    found, returns = advantages.gae(REWARDS, VALUES, torch.ones(1, 3), 1.0, 0.5)
    assert found.tolist() == [[0.0625, 0.625, 0.25]]
    assert returns.tolist() == [[0.5625, 0.875, 1.0]]


def test_gae_discounts() -> None:
    """gamma 0.5, lambda 0.5: delta 0.25; 0.5 * 0.75 - 0.25 = 0.125; 0.5 * 0.25 - 0.5 = -0.375.

    A: 0.25; 0.125 + 0.25 * 0.25 = 0.1875; -0.375 + 0.25 * 0.1875 = -0.328125.
    """
    found, _ = advantages.gae(REWARDS, VALUES, torch.ones(1, 3), 0.5, 0.5)
    assert found.tolist() == [[-0.328125, 0.1875, 0.25]]


def test_gae_of_a_padded_batch_is_that_of_its_rows() -> None:
    """Whatever stands on the padding."""
    rewards, values = random(3, 6), random(3, 6, seed=1)
    lengths = (6, 4, 1)
    mask = (torch.arange(6) < torch.tensor(lengths)[:, None]).double()
    whole = advantages.gae(rewards, values, mask, 0.9, 0.8)
    for row, length in enumerate(lengths):
        alone = advantages.gae(rewards[row : row + 1, :length], values[row : row + 1, :length], torch.ones(1, length).double(), 0.9, 0.8)
        for batch, single in zip(whole, alone, strict=True):
            assert torch.equal(batch[row, :length], single[0])
            assert not batch[row, length:].any()


def test_gae_at_its_ends() -> None:
    """lambda 1: the return is the discounted sum of the rewards to come; lambda 0: the advantage is the temporal difference."""
    rewards, values, mask = random(2, 5), random(2, 5, seed=1), torch.ones(2, 5).double()
    _, returns = advantages.gae(rewards, values, mask, 0.9, 1.0)
    for t in range(5):
        assert torch.allclose(returns[:, t], sum(0.9 ** (s - t) * rewards[:, s] for s in range(t, 5)))
    found, _ = advantages.gae(rewards, values, mask, 0.9, 0.0)
    following = torch.cat([values[:, 1:], torch.zeros(2, 1).double()], 1)
    assert torch.allclose(found, rewards + 0.9 * following - values)


def test_whiten() -> None:
    """1 and 3 have mean 2 and variance 1; the 100 on the padding does not count."""
    found = advantages.whiten(torch.tensor([[1.0, 100.0], [3.0, -7.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert found.tolist() == [[pytest.approx(-1), 0], [pytest.approx(1), 0]]


@given(st.lists(st.tuples(NUMBERS, st.booleans()), min_size=1, max_size=20))
def test_whitened(places: list[tuple[float, bool]]) -> None:
    """Mean 0 over the mask, variance 1 where the values differ; equal values become 0."""
    values, mask = torch.tensor([[v for v, _ in places]]).double(), torch.tensor([[float(m) for _, m in places]]).double()
    mask[0, 0] = 1
    kept = advantages.whiten(values, mask)[mask > 0]
    assert kept.mean().item() == pytest.approx(0, abs=1e-6)
    assert not advantages.whiten(values, mask)[mask == 0].any()
    variance = values[mask > 0].var(correction=0).item()
    assert kept.var(correction=0).item() == pytest.approx(variance / (variance + 1e-8), rel=1e-6, abs=1e-9)


def test_leave_one_out() -> None:
    """1, 2, 6: 1 - (2 + 6) / 2 = -3; 2 - (1 + 6) / 2 = -1.5; 6 - (1 + 2) / 2 = 4.5. A pair is compared with one another."""
    assert advantages.leave_one_out(torch.tensor([[1.0, 2.0, 6.0]])).tolist() == [[-3.0, -1.5, 4.5]]
    assert advantages.leave_one_out(torch.tensor([[1.0, 0.0], [2.0, 2.0]])).tolist() == [[1.0, -1.0], [0.0, 0.0]]


def test_one_answer_has_no_others() -> None:
    with pytest.raises(ValueError, match="two or more answers"):
        advantages.leave_one_out(torch.zeros(4, 1))


def test_leave_one_out_is_the_scaled_distance_to_the_mean() -> None:
    """r_i - sum of the others / (K - 1) = K / (K - 1) (r_i - mean); each prompt's sum is 0."""
    rewards = random(3, 4)
    found = advantages.leave_one_out(rewards)
    assert torch.allclose(found, 4 / 3 * advantages.group_normalised(rewards, scale=False))
    assert torch.allclose(found.sum(1), torch.zeros(3).double())


def test_group_normalised() -> None:
    """0, 1, 2 have mean 1 and (unbiased) deviation 1: -1 / 1.0001 = -0.99990001. Equal rewards teach nothing."""
    found = advantages.group_normalised(torch.tensor([[0.0, 1.0, 2.0], [5.0, 5.0, 5.0]]))
    assert found.tolist() == [pytest.approx([-0.99990001, 0.0, 0.99990001]), [0.0, 0.0, 0.0]]
    assert advantages.group_normalised(torch.tensor([[0.0, 1.0, 5.0]]), scale=False).tolist() == [[-2.0, -1.0, 3.0]]


def test_group_normalised_does_not_depend_on_scale_and_origin() -> None:
    rewards = random(3, 8)
    assert torch.allclose(advantages.group_normalised(rewards), advantages.group_normalised(5 * rewards + 3), atol=1e-3)


@pytest.mark.parametrize(("estimator", "expected"), [("k1", [1.0, -2.0]), ("abs", [1.0, 2.0]), ("k2", [0.5, 2.0]), ("k3", [0.367879, 4.389056])])
def test_kl(estimator: str, expected: list[float]) -> None:
    """d = -1 + 2 = 1 and -3 + 1 = -2. k2: 1 / 2, 4 / 2. k3: exp(-1) - 1 + 1 = 0.367879; exp(2) - 1 - 2 = 4.389056."""
    found = kl.kl(torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -1.0]), estimator)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_kl_clamped_as_verl_does() -> None:
    """k3 alone: d = -4 is exp(4) - 1 - 4 = 49.6, bounded to 10; d = 50 to 20, exp(-20) + 19, bounded to 10; d = 1 is 0.367879. No gradient at a bound."""
    logprobs = torch.tensor([-5.0, 49.0, 0.0]).requires_grad_()
    found = kl.kl(logprobs, torch.tensor([-1.0, -1.0, -1.0]), "k3", clamped=True)
    assert found.tolist() == pytest.approx([10.0, 10.0, 0.367879], abs=1e-6)
    found.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0.0, 0.0, 1 - 0.367879], abs=1e-5)
    assert kl.kl(torch.tensor([-50.0]), torch.zeros(1), "k2", clamped=True).item() == 1250


@pytest.mark.parametrize("estimator", ["k1", "abs", "k2", "k3"])
def test_no_divergence_from_oneself(estimator: str) -> None:
    same = random(5)
    assert not kl.kl(same, same, estimator).any()


def test_k1_and_k3_are_unbiased() -> None:
    """Averaged over the policy's own distribution both are the divergence itself: sum p (log p - log q)."""
    p, q = torch.softmax(random(7), 0), torch.softmax(random(7, seed=1), 0)
    exact = (p * (p.log() - q.log())).sum().item()
    for estimator in ("k1", "k3"):
        assert (p * kl.kl(p.log(), q.log(), estimator)).sum().item() == pytest.approx(exact)
    assert (kl.kl(p.log(), q.log(), "k3") >= 0).all()


def test_adaptive() -> None:
    """Target 4, batch / horizon 0.5. Observed 4.4: 1 + 0.1 / 2 = 1.05. 40 and 0 are clipped: 1 + 0.2 / 2 = 1.1, 1 - 0.2 / 2 = 0.9."""
    for observed, expected in ((4.4, 2.1), (40.0, 2.2), (0.0, 1.8), (4.0, 2.0)):
        assert math.isclose(kl.adaptive(2.0, observed, 4.0, horizon=200, batch=100), expected)
