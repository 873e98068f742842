"""The chunked log-probabilities against torch's own, values and gradients."""

import pytest
import torch

from workbench.functional.logprobs import target_logprobs
from workbench.functional.sequences import count_by_sequence, sum_by_sequence


@pytest.mark.parametrize("learn_weight", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_equals_log_softmax(learn_weight: bool, chunk: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(10, 6, dtype=torch.float64).float().requires_grad_()
    weight = torch.randn(17, 6, requires_grad=learn_weight)
    target = torch.randint(17, (10,))
    scale = torch.randn(10)
    ours = target_logprobs(hidden, weight, target, chunk)
    (ours * scale).sum().backward()
    hidden_grad, weight_grad = hidden.grad.clone(), weight.grad.clone() if learn_weight else None
    hidden.grad = weight.grad = None
    theirs = (hidden @ weight.T).log_softmax(-1).gather(1, target[:, None])[:, 0]
    (theirs * scale).sum().backward()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(hidden_grad, hidden.grad)
    if learn_weight:
        torch.testing.assert_close(weight_grad, weight.grad)


def test_without_gradients() -> None:
    with torch.no_grad():
        assert target_logprobs(torch.zeros(3, 2), torch.ones(4, 2), torch.tensor([0, 1, 2])).tolist() == pytest.approx([-1.386294] * 3)


def test_sums_by_sequence() -> None:
    """Sequence 1 has no token: its sum is 0."""
    sequence = torch.tensor([0, 0, 2])
    assert sum_by_sequence(torch.tensor([1.0, 2.0, 4.0]), sequence, 3).tolist() == [3.0, 0.0, 4.0]
    assert count_by_sequence(sequence, 3).tolist() == [2, 0, 1]
