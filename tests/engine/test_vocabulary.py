"""The chunked log-probabilities against torch's own, values and gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import gang
from workbench.engine import parallel
from workbench.engine.batch import TopK
from workbench.engine.drawn import Drawn
from workbench.engine.vocabulary import logprobs_at, target_logprobs, target_logprobs_and_entropy, top_k
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


def drawn_among(kept: list[list[int]], temperatures: list[float]) -> Drawn:
    starts = np.cumsum([0, *map(len, kept)])
    return Drawn(1 / torch.tensor(temperatures), torch.tensor([token for tokens in kept for token in tokens]), starts)


KEPT = [[0, 3, 16], [5], [1, 2, 9, 10, 11], list(range(17)), [7, 8]]
KEPT_TARGETS, TEMPERATURES = torch.tensor([3, 5, 10, 16, 7]), [0.5, 1.0, 2.0, 0.3, 0.7]


@pytest.mark.parametrize("learn_weight", [False, True])
def test_what_was_drawn_at_a_temperature_among_kept_tokens(learn_weight: bool) -> None:
    """softmax(logits / temperature) among each target's tokens: values, entropies and gradients of torch's own."""
    torch.manual_seed(4)
    hidden, weight, scale = torch.randn(5, 6).requires_grad_(), torch.randn(17, 6, requires_grad=learn_weight), torch.randn(2, 5)
    leaves = [leaf for leaf in (hidden, weight) if leaf.requires_grad]
    logits = (hidden @ weight.T) / torch.tensor(TEMPERATURES)[:, None]
    among = torch.stack([torch.zeros(17).index_fill(0, torch.tensor(tokens), 1.0) for tokens in KEPT]) > 0
    theirs = logits.masked_fill(~among, -1e9).log_softmax(-1)
    expected = theirs.gather(1, KEPT_TARGETS[:, None])[:, 0], -(theirs.exp() * theirs).sum(-1)
    how = drawn_among(KEPT, TEMPERATURES)
    found = target_logprobs_and_entropy(hidden, weight, KEPT_TARGETS, chunk=2, drawn=how)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    alone = target_logprobs(hidden, weight, KEPT_TARGETS, chunk=2, drawn=how)
    for ours, whole in (((torch.stack(found) * scale).sum(), (torch.stack(expected) * scale).sum()), (alone.sum(), expected[0].sum())):
        torch.testing.assert_close(torch.autograd.grad(ours, leaves), torch.autograd.grad(whole, leaves, retain_graph=True), atol=1e-4, rtol=1e-4)


def test_likeliest_tokens_at_a_temperature() -> None:
    torch.manual_seed(5)
    hidden, weight, scales = torch.randn(4, 6).requires_grad_(), torch.randn(17, 6).requires_grad_(), torch.randn(4, 4)
    inverse = torch.tensor([2.0, 1.0, 0.5, 3.0])
    ours = top_k(hidden, weight, 3, drawn=Drawn(inverse))
    theirs = naive(hidden * inverse[:, None], weight, ours.tokens_NK)
    torch.testing.assert_close((ours.logprobs_NK, ours.rest_N), theirs)
    torch.testing.assert_close(gradients((ours.logprobs_NK, ours.rest_N), scales, hidden, weight), gradients(theirs, scales, hidden, weight))


def naive(hidden: torch.Tensor, weight: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By the whole softmax: the tokens' log-probabilities, and log(1 - sum p) as the others' log-sum-exp."""
    logprobs = (hidden @ weight.T).log_softmax(-1)
    others = logprobs.masked_fill(torch.zeros_like(logprobs).scatter(1, tokens, 1.0) > 0, -torch.inf)
    return logprobs.gather(1, tokens), others.logsumexp(-1)


def gradients(found: tuple[torch.Tensor, torch.Tensor], scales: torch.Tensor, *leaves: torch.Tensor) -> list[torch.Tensor]:
    """Of a weighted sum of all log-probabilities and of the rests, each with weights of its own."""
    logprobs, rest = found
    total = (logprobs * scales[:, :-1]).sum() + (rest * scales[:, -1]).sum()
    return list(torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("k", [1, 3, 16])
@pytest.mark.parametrize("learn_weight", [False, True])
def test_top_k_equals_the_whole_softmax(k: int, chunk: int, learn_weight: bool) -> None:
    """17 tokens: the k highest log-probabilities, the mass of the others, and the gradients of both."""
    torch.manual_seed(1)
    hidden, weight = torch.randn(10, 6).requires_grad_(), torch.randn(17, 6, requires_grad=learn_weight)
    leaves = [leaf for leaf in (hidden, weight) if leaf.requires_grad]
    ours = top_k(hidden, weight, k, chunk=chunk)
    highest = (hidden @ weight.T).log_softmax(-1).topk(k)
    theirs = naive(hidden, weight, highest.indices)
    assert torch.equal(ours.tokens_NK, highest.indices)
    torch.testing.assert_close((ours.logprobs_NK, ours.rest_N), theirs)
    torch.testing.assert_close(ours.rest_N.exp(), 1 - ours.logprobs_NK.exp().sum(1), atol=1e-6, rtol=1e-4)
    scales = torch.randn(10, k + 1)
    torch.testing.assert_close(gradients((ours.logprobs_NK, ours.rest_N), scales, *leaves), gradients(theirs, scales, *leaves))


def test_all_tokens_are_the_whole_distribution() -> None:
    """K = V: the log-probabilities sum to 1, nothing is left, and what is left gives no gradient."""
    torch.manual_seed(2)
    hidden, weight = torch.randn(5, 6).requires_grad_(), torch.randn(17, 6)
    found = top_k(hidden, weight, 17)
    torch.testing.assert_close(found.logprobs_NK.exp().sum(1), torch.ones(5))
    assert found.rest_N.isneginf().all()
    assert torch.equal(found.tokens_NK.sort(1).values, torch.arange(17).expand(5, 17))
    scales = torch.randn(5, 17)
    mine = torch.autograd.grad((found.logprobs_NK * scales).sum() + found.rest_N.exp().sum(), hidden)[0]
    whole = (hidden @ weight.T).log_softmax(-1).gather(1, found.tokens_NK)
    torch.testing.assert_close(mine, torch.autograd.grad((whole * scales).sum(), hidden)[0])


def test_a_rest_too_small_for_the_sum_is_exact() -> None:
    """Logits 200, 0, 0: 1 - p is 0 in any precision, and the log of the others' mass is log 2 - 200."""
    found = top_k(torch.ones(1, 1), torch.tensor([[200.0], [0.0], [0.0]]), 1)
    assert found.rest_N.item() == pytest.approx(0.693147 - 200)


def test_of_equal_logits_the_lower_token_is_taken() -> None:
    """Logits 1, 2, 1, 2, 1, 0, 1: the two 2s, then the first 1s."""
    weight = torch.tensor([1.0, 2, 1, 2, 1, 0, 1])[:, None]
    for k, expected in ((1, [1]), (2, [1, 3]), (4, [1, 3, 0, 2]), (7, [1, 3, 0, 2, 4, 6, 5])):
        assert top_k(torch.ones(1, 1), weight, k).tokens_NK.tolist() == [expected]


def test_given_tokens_equal_the_whole_softmax() -> None:
    """Also where a token is named twice: its mass is left out of the rest once."""
    torch.manual_seed(3)
    hidden, weight = torch.randn(6, 6).requires_grad_(), torch.randn(17, 6).requires_grad_()
    tokens = torch.randint(17, (6, 4))
    tokens[0] = 5
    ours, theirs = logprobs_at(hidden, weight, tokens, chunk=4), naive(hidden, weight, tokens)
    torch.testing.assert_close((ours.logprobs_NK, ours.rest_N), theirs)
    scales = torch.randn(6, 5)
    torch.testing.assert_close(gradients((ours.logprobs_NK, ours.rest_N), scales, hidden, weight), gradients(theirs, scales, hidden, weight))


def split_top_k(folder: Path) -> None:
    """9 and 8 of 17 tokens, of which the first three are the last three again: the same tokens, values, and parts of the gradients."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(10, 6), torch.randn(17, 6)
    weight[14:] = weight[:3]
    span = slice(0, 9) if parallel.rank() == 0 else slice(9, 17)
    for k in (1, 4, 12, 17):
        whole_hidden, whole_weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        own_hidden, own_weight = hidden.clone().requires_grad_(), weight[span].clone().requires_grad_()
        scales = torch.randn(10, k + 1)
        scales[:, -1] *= k < 17
        expected = top_k(whole_hidden, whole_weight, k, chunk=4)
        where = {"first": span.start, "group": parallel.tensor_group(), "chunk": 4}
        for found in (top_k(own_hidden, own_weight, k, **where), logprobs_at(own_hidden, own_weight, expected.tokens_NK, **where)):
            _same(found, expected)
            rest = (found.rest_N if k < 17 else found.rest_N.exp(), expected.rest_N if k < 17 else expected.rest_N.exp())
            hidden_grad, weight_grad = gradients((found.logprobs_NK, rest[0]), scales, own_hidden, own_weight)
            torch.distributed.all_reduce(hidden_grad)
            whole = gradients((expected.logprobs_NK, rest[1]), scales, whole_hidden, whole_weight)
            torch.testing.assert_close(hidden_grad, whole[0])
            torch.testing.assert_close(weight_grad, whole[1][span])
            expected = top_k(whole_hidden, whole_weight, k, chunk=4)


def _same(found: TopK[torch.Tensor], expected: TopK[torch.Tensor]) -> None:
    assert torch.equal(found.tokens_NK, expected.tokens_NK)
    torch.testing.assert_close((found.logprobs_NK, found.rest_N), (expected.logprobs_NK, expected.rest_N))


def test_split_top_k(tmp_path: Path) -> None:
    gang.run(split_top_k, tmp_path, Layout(tensor=2))


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
    how = drawn_among(KEPT, TEMPERATURES)
    whole = target_logprobs_and_entropy(whole_hidden[:5], whole_weight, KEPT_TARGETS, chunk=2, drawn=how)
    where = {"first": span.start, "group": parallel.tensor_group(), "chunk": 2}
    torch.testing.assert_close(target_logprobs_and_entropy(hidden[:5], part, KEPT_TARGETS, **where, drawn=how), whole)


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
