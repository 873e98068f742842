"""The chunked log-probabilities against torch's own, values and gradients."""

from pathlib import Path

import pytest
import torch

from tests import gang
from workbench.engine import parallel
from workbench.engine.head import target_logprobs, target_logprobs_and_entropy
from workbench.functional.sequences import count_by_sequence, sum_by_sequence
from workbench.settings.layout import Layout


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("learn_weight", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_equals_log_softmax(learn_weight: bool, chunk: int, entropy: bool) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(10, 6).requires_grad_()
    weight = torch.randn(17, 6, requires_grad=learn_weight)
    target = torch.randint(17, (10,))
    scale, entropy_scale = torch.randn(2, 10)
    if entropy:
        ours, our_entropy = target_logprobs_and_entropy(hidden, weight, target, chunk=chunk)
    else:
        ours, our_entropy = target_logprobs(hidden, weight, target, chunk=chunk), torch.zeros(10)
    (ours * scale + our_entropy * entropy_scale * entropy).sum().backward()
    grads = [t.grad.clone() for t in (hidden, weight) if t.grad is not None]
    hidden.grad = weight.grad = None
    logprobs = (hidden @ weight.T).log_softmax(-1)
    theirs = logprobs.gather(1, target[:, None])[:, 0]
    their_entropy = -(logprobs.exp() * logprobs).sum(-1) * entropy
    (theirs * scale + their_entropy * entropy_scale).sum().backward()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(our_entropy, their_entropy)
    for grad, tensor in zip(grads, (hidden, weight), strict=False):
        torch.testing.assert_close(grad, tensor.grad)
    assert len(grads) == 1 + learn_weight


def split_vocabulary(folder: Path) -> None:
    """On two ranks, 9 and 8 of 17 tokens: the same values, and gradients that are the whole's parts."""
    torch.manual_seed(0)
    hidden, weight, target = torch.randn(10, 6), torch.randn(17, 6), torch.randint(17, (10,))
    scale = torch.randn(2, 10)
    whole_hidden, whole_weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    expected = target_logprobs_and_entropy(whole_hidden, whole_weight, target, chunk=4)
    (torch.stack(expected) * scale).sum().backward()
    span = slice(0, 9) if parallel.rank() == 0 else slice(9, 17)
    part = weight[span].clone().requires_grad_()
    hidden.requires_grad_()
    found = target_logprobs_and_entropy(hidden, part, target, first=span.start, group=parallel.tensor_group(), chunk=4)
    (torch.stack(found) * scale).sum().backward()
    torch.distributed.all_reduce(hidden.grad)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(hidden.grad, whole_hidden.grad)
    torch.testing.assert_close(part.grad, whole_weight.grad[span])


def test_split_vocabulary(tmp_path: Path) -> None:
    gang.run(split_vocabulary, tmp_path, Layout(tensor=2))


def test_without_gradients() -> None:
    with torch.no_grad():
        assert target_logprobs(torch.zeros(3, 2), torch.ones(4, 2), torch.tensor([0, 1, 2])).tolist() == pytest.approx([-1.386294] * 3)


def test_sums_by_sequence() -> None:
    """Sequence 1 has no token: its sum is 0."""
    sequence = torch.tensor([0, 0, 2])
    assert sum_by_sequence(torch.tensor([1.0, 2.0, 4.0]), sequence, 3).tolist() == [3.0, 0.0, 4.0]
    assert count_by_sequence(sequence, 3).tolist() == [2, 0, 1]
