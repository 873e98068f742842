"""DPO's loss on a batch written out by hand."""

import json
from pathlib import Path

import pytest
import torch

from workbench import api
from workbench.algorithms import dpo, sft
from workbench.data.packing import Row, batch_indices
from workbench.engine.batch import Batch, Given
from workbench.rundir.store import State
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


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    """Three pairs, none held out, of which the second step's has a reward of 1e38, times eta infinite. The run fails and names the step, and
    the checkpoint of the first step is still there; so it is where the run is to continue, whose weights are not saved any more.
    """
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    bad = int(batch_indices(3, 1, 1, seed=0)[0])
    rows = [
        {
            "prompt": f"What is {i}?",
            "chosen_response": "A number.",
            "rejected_response": "No.",
            "chosen_reward": 1e38 if i == bad else 1,
            "rejected_reward": 0,
        }
        for i in range(3)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (
        "algorithm=dpo",
        "algorithm.preference_loss=rpo_sq",
        "algorithm.eta=100",
        "algorithm.global_batch_size=1",
        "algorithm.max_steps=3",
        f"model.source={tiny_model}",
        f"data.train={tmp_path / 'rows.jsonl'}",
        "data.validation_fraction=0",
        "checkpoint.every_steps=1",
        "checkpoint.keep_last=1",
        "backend.threads_per_rank=1",
    )
    stopped = api.submit(api.compose(words))
    assert stopped.wait(240).state == State.FAILED
    assert "step 2: loss and grad_norm are NaN or infinite" in stopped.status.message
    assert "resume from the checkpoint of step 1" in stopped.status.message
    continued = api.submit(api.compose([*words, "watch.stop_on_nan=false"]))
    assert continued.wait(240).state == State.COMPLETED
    warnings = [event["message"] for event in continued.events() if event["kind"] == "warning"]
    unsaved = [message.partition(":")[0] for message in warnings if "checkpoint" in message]
    assert unsaved == ["no checkpoint of step 2", "no checkpoint of step 3"]
    for run in (stopped, continued):
        assert [path.name for path in run.dir.checkpoints.iterdir()] == ["1"]
