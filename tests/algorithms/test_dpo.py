"""DPO's loss on a batch written out by hand."""

import pytest
import torch

from workbench.algorithms import dpo, sft
from workbench.data.packing import Row
from workbench.engine.batch import Batch, Given
from workbench.settings.composing import SpecError
from workbench.settings.spec import compose


def batch(logprobs: list[float], reference: list[float], sequence: list[int], **values: float) -> Batch:
    rows = [Row([1], ((2,), (3,)), values=values) for _ in range(max(sequence) // 2 + 1)]
    return Batch(Given(torch.tensor(logprobs)), torch.tensor(reference), torch.tensor(sequence), max(sequence) + 1, rows)


def test_one_pair() -> None:
    """Chosen: two tokens, log-ratio (-1 - -1.5) + (-2 - -2.5) = 1. Rejected: one token, -3 - -2 = -1. D = 2; with beta 0.5 the margin is 1,
    the loss -log sigmoid(1) = 0.313262, the rewards 0.5 and -0.5.
    """
    loss, metrics = dpo.loss(batch([-1, -2, -3], [-1.5, -2.5, -2], [0, 0, 1]), dpo.Config(beta=0.5))
    assert loss.tolist() == pytest.approx([0.313262], abs=1e-6)
    assert metrics["rewards_chosen_mean"].item() == 0.5
    assert metrics["rewards_rejected_mean"].item() == -0.5
    assert metrics["rewards_margin"].item() == 1.0
    assert metrics["accuracy"].item() == 1.0
    assert metrics["logprobs_chosen"].item() == -3.0
    assert metrics["logprobs_rejected"].item() == -3.0


def test_length_normalized() -> None:
    """Per token: chosen 1 / 2 = 0.5, rejected -1. D = 1.5; beta D = 0.75: -log sigmoid(0.75) = 0.386871."""
    loss, _ = dpo.loss(batch([-1, -2, -3], [-1.5, -2.5, -2], [0, 0, 1]), dpo.Config(beta=0.5, length_normalized=True))
    assert loss.item() == pytest.approx(0.386871, abs=1e-6)


def test_sft_weight() -> None:
    """Adds 0.1 times the chosen answer's negative log-likelihood, 3: 0.313262 + 0.3."""
    loss, _ = dpo.loss(batch([-1, -2, -3], [-1.5, -2.5, -2], [0, 0, 1]), dpo.Config(beta=0.5, sft_loss_weight=0.1))
    assert loss.item() == pytest.approx(0.613262, abs=1e-6)


def test_reward_aware() -> None:
    """beta D = 1, eta Dr = 2 * (3 - 2) = 2: (1 - 2)^2 = 1."""
    pair = batch([-1, -2, -3], [-1.5, -2.5, -2], [0, 0, 1], chosen_reward=3, rejected_reward=2)
    loss, _ = dpo.loss(pair, dpo.Config(beta=0.5, eta=2, preference_loss="rpo_sq"))
    assert loss.item() == 1.0


def test_reward_aware_without_rewards() -> None:
    with pytest.raises(ValueError, match="needs 'chosen_reward' in every row"):
        dpo.loss(batch([-1, -1], [-1, -1], [0, 1]), dpo.Config(preference_loss="rpo_sq"))


@pytest.mark.parametrize("kind", ["dpo", "cdpo", "ipo", "rpo_fwd_kl", "rpo_bwd_kl", "rpo_sq", "hinge"])
def test_two_pairs_are_two_batches(kind: str) -> None:
    """A batch's losses are its pairs' own."""
    cfg = dpo.Config(preference_loss=kind, label_smoothing=0.1 if kind == "cdpo" else 0)
    values = {"chosen_reward": 1.0, "rejected_reward": 0.5}
    both, _ = dpo.loss(batch([-1, -2, -3, -1, -5], [-2, -2, -2, -2, -2], [0, 0, 1, 2, 3], **values), cfg)
    first, _ = dpo.loss(batch([-1, -2, -3], [-2, -2, -2], [0, 0, 1], **values), cfg)
    second, _ = dpo.loss(batch([-1, -5], [-2, -2], [0, 1], **values), cfg)
    assert both.tolist() == [first.item(), second.item()]


def test_smoothing_goes_with_cdpo() -> None:
    with pytest.raises(SpecError, match="cdpo needs a smoothing"):
        compose(["algorithm=dpo", "algorithm.preference_loss=cdpo"])


def test_sft() -> None:
    """One value a token: 1 and 2."""
    loss, metrics = sft.loss(batch([-1, -2], [0, 0], [0, 0]), sft.Config())
    assert loss.tolist() == [1.0, 2.0]
    assert metrics["logprobs"].tolist() == [-1.0, -2.0]
